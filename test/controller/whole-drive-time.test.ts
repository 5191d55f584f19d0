/** What commands book in device time against what they did to the flash. */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { labelText, type TraceKind } from '../../spec/device-trace.ts';
import { ALL_LAYERS, attendFlags, attendOutputs, BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { type Clock, systemClock } from '../../daemon/base/clock.ts';
import { profileOf } from '../../daemon/profiles/profiles.ts';
import { Device } from '../../daemon/timing/device.ts';
import type { JobObserver, JobOperation } from '../../daemon/timing/device-job.ts';
import { append, attendBytes, bytesOf, createSequence, idFields, payloadAt, queries } from '../commands/kv-host.ts';
import type { RawHost } from './raw-host.ts';
import { formatFolder, openWholeDrive, type WholeDrive } from './whole-drive.ts';

const LBA = 4096;
/** Of the sequences that `createSequence` makes: f32. */
const HEADS = 2;
const DIM = 8;
const ROW_BYTES = HEADS * DIM * 4;

interface BookedJob {
  readonly name: string;
  readonly operations: { kind: TraceKind; bytes: number; value: number; attemptCount: number }[];
  latencyNs: number;
}

/** Keeps everything, of jobs under way too. */
class Ledger implements JobObserver {
  readonly jobs: BookedJob[] = [];
  readonly #open = new Map<number, BookedJob>();

  begin(job: number, label: number): void {
    const booked = { name: labelText(label), operations: [], latencyNs: 0 };
    this.jobs.push(booked);
    this.#open.set(job, booked);
  }

  operation(job: number, kind: TraceKind, { bytes, value, attemptCount }: JobOperation): void {
    this.#open.get(job)!.operations.push({ kind, bytes, value, attemptCount });
  }

  end(job: number, latencyNs: number): void {
    this.#open.get(job)!.latencyNs = latencyNs;
    this.#open.delete(job);
  }

  count(...kinds: TraceKind[]): number {
    return this.jobs.flatMap(({ operations }) => operations).filter(({ kind }) => kinds.includes(kind)).length;
  }

  last(name: string): BookedJob {
    return this.jobs.findLast((job) => job.name === name)!;
  }
}

const range = (row: { opcode: number }, lba: number, lbaCount: number) => ({
  opcode: row.opcode,
  nsid: BLOCK_NSID,
  cdw10: lba,
  cdw12: lbaCount - 1,
});

/** Nothing that has begun is under way any more when anybody looks again. */
function leapingClock(): Clock {
  let nowNs = 0;
  return { ...systemClock, nowNs: () => (nowNs += 1e8) };
}

async function withDrive(
  t: TestContext,
  work: (modules: { drive: WholeDrive; io: RawHost; ledger: Ledger }) => Promise<void>,
  { format = {}, clock = systemClock }: { format?: Parameters<typeof formatFolder>[1]; clock?: Clock } = {},
): Promise<void> {
  const folder = await formatFolder(t, format);
  const ledger = new Ledger();
  const { timing } = profileOf('smartssd');
  const drive = await openWholeDrive(folder, {
    clock,
    deviceTime: ({ geometry }) => new Device({ timing: timing!, shape: geometry }, { clock, observer: ledger }),
  });
  try {
    const { io } = await drive.connect();
    await work({ drive, io, ledger });
  } finally {
    await drive.close();
  }
}

test('a page with more bit errors than can be corrected at once is sensed again, and the read takes as much longer', (t) =>
  withDrive(
    t,
    async ({ drive, io, ledger }) => {
      const { ftl } = drive;
      const { errors } = ftl.flash.array;
      await io.run(range(nvmOpcodes.write, 0, 1), Buffer.alloc(LBA, 1));
      const ppn = ftl.blocks.map.get(0);
      const readNs = async (): Promise<number> => {
        assert.equal((await io.read(range(nvmOpcodes.read, 0, 1), LBA)).status, 0);
        return ledger.last('Read').latencyNs;
      };
      const cleanNs = await readNs();
      errors.inject(ppn, errors.correctableBits + 1);
      const retriedNs = await readNs();
      const { attemptCount } = ledger.last('Read').operations.find(({ kind }) => kind === 'readToHost')!;
      assert.equal(attemptCount, 1 + errors.retryCount(ppn));
      assert.equal(attemptCount, 2);
      const { readNs: cellReadNs } = profileOf('smartssd').timing!.flash;
      assert.ok(cellReadNs.includes(retriedNs - cleanNs), `${retriedNs - cleanNs} ns longer`);
    },
    { format: { profile: profileOf('smartssd') }, clock: leapingClock() },
  ));

test('every page that is programmed, read or erased is booked, garbage collection too', (t) =>
  withDrive(t, async ({ drive, io, ledger }) => {
    const { lbaCount, ftl } = drive;
    const random = createSeededRandom(1);
    const anywhere = (): number => random.nextUint32() % (lbaCount - 8);
    const data = Buffer.alloc(8 * LBA, 7);
    for (let written = 0; written < 4 * lbaCount; written += 8) {
      assert.equal((await io.run(range(nvmOpcodes.write, anywhere(), 8), data)).status, 0);
      if (written % 64 !== 0) continue;
      assert.equal((await io.read(range(nvmOpcodes.read, anywhere(), 5), 5 * LBA)).status, 0);
      assert.equal((await io.run(range(nvmOpcodes.verify, anywhere(), 5))).status, 0);
    }
    const id = await createSequence(io);
    await append(io, id, 0, 700);
    assert.equal((await append(io, id, 100, 600)).dw0, 700, 'a repeat is compared with the pages');
    await io.run({ ...idFields(id), opcode: kvOpcodes.truncate.opcode, cdw12: 0, cdw13: 300 });
    await io.read(
      { ...idFields(id), opcode: kvOpcodes.readBack.opcode, cdw12: 3 << 25, cdw14: 300 },
      2 * 300 * ROW_BYTES,
    );
    const { programs, reads, superblocksErased } = ftl.flash.array.counters;
    const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((a, b) => a + b, 0);
    assert.ok(programs.gc > 0, 'garbage collection ran');
    assert.equal(ledger.count('programPosted'), programs.block + programs.kv);
    assert.equal(ledger.count('program'), programs.gc);
    assert.equal(ledger.count('read', 'readToHost'), sum(reads));
    assert.equal(ledger.count('erase'), superblocksErased * ftl.geometry.unitCount);
  }));

test('an ATTN books its pages, its work, its data, and what waits in the tail buffer', (t) =>
  withDrive(t, async ({ io, ledger }) => {
    const id = await createSequence(io, { groupTokens: 16 });
    await append(io, id, 0, 40);
    const queryHeadsPerKvHead = 3;
    const query = bytesOf(queries(1, HEADS * queryHeadsPerKvHead));
    const outputBytes = query.length;
    const entry = {
      sequenceId: id,
      layer: 0,
      queryHeadsPerKvHead,
      queryTokenCount: 1,
      queryPosition: 39,
      tokenEnd: 40,
      queryOffset: payloadAt(1),
      outKind: attendOutputs.exchange,
    };
    const bytes = attendBytes({ flags: attendFlags.deviceTime }, [entry], query);
    const { status, dw0, dw1 } = await io.run(
      { opcode: kvOpcodes.attendExchange.opcode, nsid: KV_CACHE_NSID, cdw10: outputBytes },
      bytes,
    );
    assert.equal(status, 0);
    const { operations, latencyNs } = ledger.last('ATTN Exchange');
    assert.deepEqual([dw0, dw1], [32, latencyNs], 'tokens in flash, and the device latency');
    const pages = operations.filter(({ kind }) => kind === 'readToCompute');
    const groupBytes = 16 * DIM * 4;
    const rowCount = queryHeadsPerKvHead;
    assert.equal(pages.length, 2 * HEADS * 2, 'two groups of K and of V for each head');
    assert.ok(pages.every((page) => page.bytes === groupBytes && page.value === 2 * 16 * DIM * rowCount));
    const tail = operations.filter(({ kind }) => kind === 'compute');
    assert.deepEqual(
      tail.map(({ bytes: tailBytes, value }) => [tailBytes, value]),
      Array.from({ length: HEADS }, () => [8 * 2 * DIM * 4, 2 * 8 * 2 * DIM * rowCount]),
    );
    const moved = (kind: TraceKind): number[] => operations.filter((one) => one.kind === kind).map((one) => one.bytes);
    assert.deepEqual(moved('hostToDevice'), [bytes.length]);
    assert.deepEqual(moved('deviceToHost'), [outputBytes]);
    assert.deepEqual(moved('finishHeads'), [HEADS]);
  }));

test('every I/O command has a device time', (t) =>
  withDrive(t, async ({ io, ledger }) => {
    const id = await createSequence(io);
    await append(io, id, 0, 5);
    const block = Buffer.alloc(LBA, 1);
    await io.run(range(nvmOpcodes.write, 0, 1), block);
    await io.read(range(nvmOpcodes.read, 0, 1), LBA);
    await io.run(range(nvmOpcodes.compare, 0, 1), block);
    await io.run(range(nvmOpcodes.verify, 0, 1));
    await io.run(range(nvmOpcodes.writeZeroes, 0, 1));
    await io.run({ opcode: nvmOpcodes.datasetManagement.opcode, nsid: BLOCK_NSID, cdw11: 4 }, Buffer.alloc(16));
    await io.run({ opcode: nvmOpcodes.flush.opcode, nsid: BLOCK_NSID });
    const kv = idFields(id);
    await io.run({ opcode: kvOpcodes.flush.opcode, nsid: KV_CACHE_NSID });
    await io.read({ ...kv, opcode: kvOpcodes.query.opcode }, 256);
    await io.read({ ...kv, opcode: kvOpcodes.readBack.opcode, cdw12: 1 << 25, cdw14: 5 }, 5 * ROW_BYTES);
    await io.run({ ...kv, opcode: kvOpcodes.truncate.opcode, cdw12: ALL_LAYERS, cdw13: 2 });
    const descriptor = Buffer.alloc(256);
    descriptor.writeUInt16LE(1, 0);
    await io.run({ ...kv, opcode: kvOpcodes.fork.opcode, cdw12: 2 }, descriptor);
    await io.run({ ...kv, opcode: kvOpcodes.reclaim.opcode });
    const done = new Set(ledger.jobs.map(({ name }) => name));
    const tested = [...Object.values(nvmOpcodes), ...Object.values(kvOpcodes)].map(({ name }) => name);
    const attention = ['ATTN', 'ATTN Exchange', 'ATTN Result'];
    assert.deepEqual(
      tested.filter((name) => !done.has(name) && !attention.includes(name)),
      [],
    );
    for (const { name, latencyNs } of ledger.jobs) assert.ok(latencyNs > 0, name);
  }));
