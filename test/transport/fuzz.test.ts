/**
 * Commands and bytes that make no sense. Whatever comes: every command is answered or its connection ends with
 * C2HTermReq, nothing of it is our own error, and the drive serves the next host as before.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adminOpcodes, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { pduTypes } from '../../spec/pdu.ts';
import { attendBytes, createBytes, createRegion, createSequence } from '../commands/kv-host.ts';
import type { CommandFields, RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig } from '../controller/rig.ts';

/** mulberry32: the same numbers on every machine. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

type Random = ReturnType<typeof generator>;
const pick = <T>(random: Random, values: readonly T[]): T => values[random(values.length)] as T;
const edges = [0, 1, 2, 3, 4, 7, 8, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];
const lengths = [0, 4, 16, 64, 160, 256, 512, 1024, 4096, 8192];

/** A flip here and there in something sensible gets further than noise does. */
function payload(random: Random, length: number): Buffer {
  const sensible = [
    createBytes({ sequenceId: BigInt(random(5)) }),
    attendBytes(
      {},
      [{ sequenceId: BigInt(random(5)), queryHeadsPerKvHead: 1, queryTokenCount: 1 }],
      new Uint8Array(256),
    ),
    Buffer.alloc(length, random(256)),
  ];
  const bytes = Buffer.alloc(length);
  bytes.set(pick(random, sensible).subarray(0, length));
  for (let i = random(4); i > 0 && length > 0; i--) bytes[random(length)] = random(256);
  return bytes;
}

function command(random: Random, table: object, key: number): { fields: CommandFields; data: Buffer | undefined } {
  const { opcode } = pick(random, Object.values(table)) as { opcode: number };
  const dword = (): number => (random(3) === 0 ? pick(random, edges) : random(2) * random(32));
  const length = pick(random, lengths);
  const kind = random(6);
  const sgl =
    kind === 0
      ? ({ kind: 'none' } as const)
      : kind < 3
        ? ({ kind: 'transport', length } as const)
        : ({
            kind: 'keyed',
            key: random(8) === 0 ? 5 : key,
            offset: pick(random, [0, 4, 4096, 60_000]),
            length,
          } as const);
  const fields = {
    opcode: random(30) === 0 ? random(256) : opcode,
    nsid: pick(random, [0, 1, 1, 2, 2, 2, 3, 2 ** 32 - 1]),
    cdw10: dword(),
    cdw11: random(4) === 0 ? dword() : 0,
    cdw12: dword(),
    cdw13: dword(),
    cdw14: random(4) === 0 ? dword() : 0,
    cdw15: random(4) === 0 ? dword() : 0,
  };
  if (fields.opcode === 0x7f) fields.opcode = 0;
  return kind === 5 && length > 0
    ? { fields, data: payload(random, length) }
    : { fields: { ...fields, sgl }, data: undefined };
}

async function expectServing(rig: Rig): Promise<void> {
  const { host } = await rig.admin();
  assert.equal((await host.read({ opcode: adminOpcodes.identify.opcode, cdw10: 1 }, 4096)).status, 0);
  host.close();
}

for (const seed of [1, 2, 3]) {
  test(`senseless commands, seed ${seed}`, async (t) => {
    const random = generator(seed);
    const rig = await createRig(t, { limits: { regionBytesMax: 1 << 20 } });
    const { host, cntlid } = await rig.admin();
    const io = await rig.io(cntlid);
    const { key } = await createRegion(host, 65_536);
    for (const sequenceId of [1n, 2n, 3n]) await createSequence(io, { sequenceId });
    const statuses = new Set<number>();
    for (let i = 0; i < 3000; i++) {
      const isAdmin = random(4) === 0;
      const queue: RawHost = isAdmin ? host : io;
      const { fields, data } = command(random, isAdmin ? adminOpcodes : random(3) === 0 ? nvmOpcodes : kvOpcodes, key);
      // Features are left alone: a keep alive of a millisecond or no write cache would end the game.
      if (isAdmin && fields.opcode === adminOpcodes.setFeatures.opcode) continue;
      // It has no answer until something happens.
      if (isAdmin && fields.opcode === adminOpcodes.asyncEventRequest.opcode) continue;
      if (isAdmin && fields.opcode === adminOpcodes.regionDelete.opcode && fields.cdw10 === key) continue;
      const commandId = queue.send(fields, data);
      const completion = await queue.completion(payload(random, 8192));
      assert.equal(completion.commandId, commandId);
      statuses.add(completion.status);
    }
    assert.deepEqual(rig.fatals, []);
    assert.equal(rig.subsystem.snapshot().inFlightCount, 0);
    assert.equal(rig.subsystem.snapshot().runningBytes, 0);
    assert.ok(statuses.has(0) && statuses.size > 8, `only ${statuses.size} different statuses`);
    await expectServing(rig);
  });
}

test('streams with bytes flipped, cut, and repeated', async (t) => {
  const random = generator(11);
  const rig = await createRig(t);
  for (let i = 0; i < 150; i++) {
    const host = await rig.host();
    const good = Buffer.concat([
      random(4) === 0 ? Buffer.alloc(0) : host.connectBytes({}, { subnqn: rig.nqn }),
      host.capsuleBytes(host.entryBytes({ opcode: adminOpcodes.keepAlive.opcode }, 7)),
      host.h2cDataBytes(7, 0, 0, payload(random, 64), true),
    ]);
    const from = random(good.length);
    const stream = random(2) === 0 ? good : Buffer.concat([good.subarray(from), good]);
    for (let flips = random(5); flips > 0; flips--) stream[random(stream.length)] = random(256);
    host.write(stream);
    host.socket.end();
    for (let pdu = await host.next(); pdu !== undefined; pdu = await host.next()) {
      const { capsuleResp, c2hTermReq } = pduTypes;
      assert.ok(pdu.type === capsuleResp.type || pdu.type === c2hTermReq.type, `PDU type ${pdu.type}`);
    }
    host.close();
  }
  assert.deepEqual(rig.fatals, []);
  await expectServing(rig);
});
