import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { ALL_TOKENS, attendOutputs, BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import {
  append,
  assertClose,
  attendBytes,
  bytesOf,
  createRegion,
  createSequence,
  expected,
  floatsOf,
  payloadAt,
  queries,
  statusOf,
} from '../commands/kv-host.ts';
import type { RawHost } from './raw-host.ts';
import { formatFolder, openWholeDrive } from './whole-drive.ts';

const LBA = 4096;
const HEADS = 4;
const DIM = 8;
const OUTPUT_BYTES = HEADS * DIM * 4;

/** The same for every round of the same block. */
const block = (lba: number, round: number): Buffer => {
  const bytes = Buffer.alloc(LBA);
  for (let at = 0; at < LBA; at += 8) {
    bytes.writeUInt32LE(lba, at);
    bytes.writeUInt32LE(round * 2 ** 16 + at, at + 4);
  }
  return bytes;
};
const range = (row: { opcode: number }, lba: number, lbaCount: number) => ({
  opcode: row.opcode,
  nsid: BLOCK_NSID,
  cdw10: lba,
  cdw12: lbaCount - 1,
});

describe('blocks on flash', () => {
  test('written over and over through capsules and R2T, deallocated, flushed, and there after a restart', async (t) => {
    const folder = await formatFolder(t);
    let drive = await openWholeDrive(folder);
    const { lbaCount } = drive;
    const rounds = new Map<number, number>();
    let { io } = await drive.connect();
    const write = async (lba: number, count: number, round: number): Promise<void> => {
      const data = Buffer.concat(Array.from({ length: count }, (_, i) => block(lba + i, round)));
      assert.equal((await io.run(range(nvmOpcodes.write, lba, count), data)).status, 0);
      for (let i = 0; i < count; i++) rounds.set(lba + i, round);
    };
    const check = async (host: RawHost): Promise<void> => {
      for (let lba = 0; lba < lbaCount; lba += 64) {
        const count = Math.min(64, lbaCount - lba);
        const { status, data } = await host.read(range(nvmOpcodes.read, lba, count), count * LBA);
        assert.equal(status, 0);
        for (let i = 0; i < count; i++) {
          const round = rounds.get(lba + i);
          const wanted = round === undefined ? Buffer.alloc(LBA) : block(lba + i, round);
          assert.ok(data.subarray(i * LBA, (i + 1) * LBA).equals(wanted), `block ${lba + i}`);
        }
      }
    };
    for (let round = 1; round <= 3; round++) {
      for (let lba = 0; lba < lbaCount; lba += 32) await write(lba, Math.min(32, lbaCount - lba), round);
      for (let i = 0; i < 40; i++) await write((i * 37 * round) % lbaCount, 1, round + 100);
    }
    const zeroed = await io.run(range(nvmOpcodes.writeZeroes, 10, 20));
    assert.equal(zeroed.status, 0);
    for (let lba = 10; lba < 30; lba++) rounds.delete(lba);
    await check(io);
    assert.equal((await io.run({ opcode: nvmOpcodes.flush.opcode, nsid: BLOCK_NSID })).status, 0);
    await drive.close();
    assert.deepEqual(drive.fatals, []);
    drive = await openWholeDrive(folder);
    ({ io } = await drive.connect());
    await check(io);
    await drive.close();
  });
});

describe('sequences on flash', () => {
  test('attended to in flash and in the tail buffer, by exchange and region, and after a restart', async (t) => {
    const folder = await formatFolder(t);
    let drive = await openWholeDrive(folder);
    let { admin, io } = await drive.connect();
    const id = await createSequence(io, { groupTokens: 32, sequenceId: 9n });
    for (let position = 0; position < 300; position += 75) {
      assert.equal((await append(io, id, position, 75)).status, 0);
    }
    for (let position = 300; position < 310; position++) await append(io, id, position, 1);
    const query = queries(1, HEADS);
    const entry = {
      sequenceId: id,
      queryHeadsPerKvHead: 2,
      queryTokenCount: 1,
      tokenEnd: ALL_TOKENS,
      queryOffset: payloadAt(1),
    };
    const check = (bytes: Uint8Array): void => {
      for (let head = 0; head < HEADS; head++) {
        const row = query.subarray(head * DIM, (head + 1) * DIM);
        const { output } = expected(row, Math.floor(head / 2), { start: 0, end: 310 });
        assertClose(floatsOf(bytes).subarray(head * DIM, (head + 1) * DIM), output, 1e-4);
      }
    };
    const exchange = () =>
      io.run(
        { opcode: kvOpcodes.attendExchange.opcode, nsid: KV_CACHE_NSID, cdw10: OUTPUT_BYTES },
        attendBytes({}, [entry], bytesOf(query)),
      );
    const first = await exchange();
    assert.equal(first.status, 0);
    check(first.data);
    assert.deepEqual([first.dw0, first.dw1], [288, 22]);
    const { key, path } = await createRegion(admin, 65_536);
    writeFileSync(path, bytesOf(query), { flag: 'r+' });
    const inRegion = {
      ...entry,
      queryKey: key,
      queryOffset: 0,
      outKind: attendOutputs.region,
      outKey: key,
      outOffset: 4096,
    };
    const bytes = attendBytes({}, [inRegion], new Uint8Array(0));
    assert.equal((await io.run({ opcode: kvOpcodes.attend.opcode, nsid: KV_CACHE_NSID }, bytes)).status, 0);
    check(readFileSync(path).subarray(4096, 4096 + OUTPUT_BYTES));
    assert.equal((await io.run({ opcode: kvOpcodes.flush.opcode, nsid: KV_CACHE_NSID })).status, 0);
    await drive.close();
    assert.deepEqual(drive.fatals, []);
    drive = await openWholeDrive(folder);
    ({ admin, io } = await drive.connect());
    const again = await exchange();
    check(again.data);
    assert.deepEqual([again.dw0, again.dw1], [288, 22]);
    await drive.close();
    assert.deepEqual(drive.fatals, []);
  });

  test('with a bit flipped in every page: a media error that names the page, no text, and the drive goes on', async (t) => {
    const folder = await formatFolder(t);
    let drive = await openWholeDrive(folder);
    let { io } = await drive.connect();
    const id = await createSequence(io, { groupTokens: 32, sequenceId: 9n });
    await append(io, id, 0, 64);
    const untouched = await createSequence(io);
    await append(io, untouched, 0, 5);
    await drive.close();
    const path = join(folder, 'media/cells.bin');
    const cells = readFileSync(path);
    for (let at = 65_536; at < cells.length; at += LBA) cells[at + 8]! ^= 1;
    writeFileSync(path, cells);
    drive = await openWholeDrive(folder);
    ({ io } = await drive.connect());
    const attendTo = (sequenceId: bigint) =>
      io.run(
        { opcode: kvOpcodes.attendExchange.opcode, nsid: KV_CACHE_NSID, cdw10: OUTPUT_BYTES },
        attendBytes(
          {},
          [{ sequenceId, queryHeadsPerKvHead: 2, queryTokenCount: 1, tokenEnd: ALL_TOKENS, queryOffset: payloadAt(1) }],
          bytesOf(queries(1, HEADS)),
        ),
      );
    const failed = await attendTo(id);
    assert.equal(failed.status, statusOf('unrecoveredRead'));
    assert.equal(failed.data.length, 0);
    const pageCount = (cells.length - 65_536) / LBA;
    assert.ok(failed.dw1 === 0 && failed.dw0 < pageCount, `page ${failed.dw0} of ${pageCount}`);
    const back = { opcode: kvOpcodes.readBack.opcode, nsid: KV_CACHE_NSID, cdw10: 9, cdw12: 1 << 25, cdw14: 64 };
    assert.equal((await io.read(back, 64 * 64)).status, statusOf('unrecoveredRead'));
    assert.equal((await attendTo(untouched)).status, 0);
    assert.deepEqual(drive.fatals, []);
    await drive.close();
  });
});
