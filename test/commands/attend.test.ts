import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, test, type TestContext } from 'node:test';
import { ALL_TOKENS, attendFlags, attendOutputs, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { kvOpcodes } from '../../spec/opcodes.ts';
import type { CommandFields, Completion, RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig, type RigOptions } from '../controller/rig.ts';
import {
  append,
  assertClose,
  attendBytes,
  bytesOf,
  createRegion,
  createSequence,
  type EntryFields,
  expected,
  floatsOf,
  type HeaderFields,
  payloadAt,
  queries,
  rows,
  statusOf,
} from './kv-host.ts';

const HEADS = 4;
const DIM = 8;
const ROW_BYTES = DIM * 4;
const OUTPUT_BYTES = HEADS * ROW_BYTES;

interface Opened {
  readonly rig: Rig;
  readonly io: RawHost;
  readonly admin: RawHost;
  readonly id: bigint;
}

/** One sequence of 20 tokens in layer 0. */
async function open(t: TestContext, options: RigOptions = {}): Promise<Opened> {
  const rig = await createRig(t, options);
  const { cntlid, host: admin } = await rig.admin();
  const io = await rig.io(cntlid);
  const id = await createSequence(io);
  await append(io, id, 0, 20);
  return { rig, io, admin, id };
}

const entryOf = (id: bigint, fields: EntryFields = {}): EntryFields => ({
  sequenceId: id,
  queryHeadsPerKvHead: 2,
  queryTokenCount: 1,
  queryPosition: 19,
  tokenEnd: ALL_TOKENS,
  queryOffset: payloadAt(1),
  ...fields,
});

const command = (opcode: number, fields: Partial<CommandFields> = {}): CommandFields => ({
  opcode,
  nsid: KV_CACHE_NSID,
  ...fields,
});

/** Exchange of one entry; the output comes back as data. */
const exchange = (
  io: RawHost,
  header: HeaderFields,
  entries: readonly EntryFields[],
  payload: Uint8Array,
  bytes: number,
): Promise<Completion> =>
  io.run(command(kvOpcodes.attendExchange.opcode, { cdw10: bytes }), attendBytes(header, entries, payload));

const attend = (io: RawHost, header: HeaderFields, entries: readonly EntryFields[], payload: Uint8Array) =>
  io.run(command(kvOpcodes.attend.opcode), attendBytes(header, entries, payload));

const result = (slot: number, offset = 0, keep = false): CommandFields =>
  command(kvOpcodes.attendResult.opcode, { cdw10: slot, cdw11: offset, cdw12: keep ? 1 : 0 });

function assertOutput(bytes: Uint8Array, query: Float32Array, end: number, start = 0): void {
  const outputs = floatsOf(bytes);
  for (let head = 0; head < HEADS; head++) {
    const wanted = expected(query.subarray(head * DIM, (head + 1) * DIM), Math.floor(head / 2), { start, end });
    assertClose(outputs.subarray(head * DIM, (head + 1) * DIM), wanted.output);
  }
}

describe('where outputs go', () => {
  const query = queries(1, HEADS);

  test('exchange: back as data, with zeros around it', async (t) => {
    const { rig, io, id } = await open(t);
    for (const outOffset of [0, 64, 33]) {
      const completion = await exchange(io, {}, [entryOf(id, { outOffset })], bytesOf(query), 256);
      assert.equal(completion.status, 0);
      assert.equal(completion.data.length, 256);
      assertOutput(completion.data.subarray(outOffset, outOffset + OUTPUT_BYTES), query, 20);
      completion.data.fill(0, outOffset, outOffset + OUTPUT_BYTES);
      assert.ok(completion.data.every((byte) => byte === 0));
      assert.deepEqual([completion.dw0, completion.dw1], [0, 20]);
    }
    assert.equal(rig.subsystem.snapshot().counters.attendCommands, 3);
  });

  test('a region: input and output pass the socket by', async (t) => {
    const { io, admin, id } = await open(t);
    const { key, path } = await createRegion(admin, 4096);
    const file = Buffer.alloc(4096, 0xab);
    file.set(bytesOf(query), 1000);
    writeFileSync(path, file, { flag: 'r+' });
    const entry = entryOf(id, {
      queryKey: key,
      queryOffset: 1000,
      outKind: attendOutputs.region,
      outKey: key,
      outOffset: 2002,
    });
    const completion = await attend(io, {}, [entry], new Uint8Array(0));
    assert.equal(completion.status, 0);
    const after = readFileSync(path);
    assertOutput(after.subarray(2002, 2002 + OUTPUT_BYTES), query, 20);
    file.set(after.subarray(2002, 2002 + OUTPUT_BYTES), 2002);
    assert.deepEqual(after, file);
  });

  test('the whole descriptor in a region, by keyed SGL', async (t) => {
    const { io, admin, id } = await open(t);
    const { key, path } = await createRegion(admin, 4096);
    const entry = entryOf(id, { outKind: attendOutputs.region, outKey: key, outOffset: 2048 });
    const bytes = attendBytes({}, [entry], bytesOf(query));
    writeFileSync(path, bytes, { flag: 'r+' });
    const sgl = { kind: 'keyed', key, offset: 0, length: bytes.length } as const;
    assert.equal((await io.run(command(kvOpcodes.attend.opcode, { sgl }))).status, 0);
    assertOutput(readFileSync(path).subarray(2048, 2048 + OUTPUT_BYTES), query, 20);
  });

  test('a slot: read in pieces, freed by the last read', async (t) => {
    const { rig, io, id } = await open(t);
    const entry = entryOf(id, { outKind: attendOutputs.slot, outKey: 5, outOffset: 16 });
    assert.equal((await attend(io, {}, [entry], bytesOf(query))).status, 0);
    const sized = await io.run(result(5, 0, true));
    assert.deepEqual([sized.status, sized.dw0], [0, 16 + OUTPUT_BYTES]);
    assert.equal((await attend(io, {}, [entry], bytesOf(query))).status, statusOf('slotInUse'));
    const first = await io.read(result(5, 0, true), 80);
    const last = await io.read(result(5, 80), 16 + OUTPUT_BYTES - 80);
    assertOutput(Buffer.concat([first.data.subarray(16), last.data]), query, 20);
    assert.equal((await io.read(result(5), 16)).status, statusOf('slotEmpty'));
    assert.equal(rig.subsystem.snapshot().associations[0]?.slotCount, 0);
    assert.equal((await attend(io, {}, [entry], bytesOf(query))).status, 0);
  });

  test('two entries in one slot, and a batch over several kinds', async (t) => {
    const { io, admin, id } = await open(t);
    const { key, path } = await createRegion(admin, 4096);
    const second = queries(1, HEADS, 2);
    const payload = Buffer.concat([bytesOf(query), bytesOf(second)]);
    const at = payloadAt(4);
    const other = at + OUTPUT_BYTES;
    const slot = { outKind: attendOutputs.slot, outKey: 0 };
    const completion = await exchange(
      io,
      {},
      [
        entryOf(id, { queryOffset: at, ...slot }),
        entryOf(id, { queryOffset: other, ...slot, outOffset: OUTPUT_BYTES, tokenStart: 3, tokenEnd: 9 }),
        entryOf(id, { queryOffset: other, outKind: attendOutputs.region, outKey: key }),
        entryOf(id, { queryOffset: at, outOffset: 8, tokenEnd: 1 }),
      ],
      payload,
      8 + OUTPUT_BYTES,
    );
    assert.equal(completion.status, 0);
    const slotBytes = (await io.read(result(0), 2 * OUTPUT_BYTES)).data;
    assertOutput(slotBytes.subarray(0, OUTPUT_BYTES), query, 20);
    assertOutput(slotBytes.subarray(OUTPUT_BYTES), second, 9, 3);
    assertOutput(readFileSync(path).subarray(0, OUTPUT_BYTES), second, 20);
    assertOutput(completion.data.subarray(8), query, 1);
  });

  test('statistics follow the outputs', async (t) => {
    const { io, id } = await open(t);
    const bytes = OUTPUT_BYTES + HEADS * 8;
    const { data } = await exchange(io, { flags: attendFlags.statistics }, [entryOf(id)], bytesOf(query), bytes);
    const statistics = floatsOf(data.subarray(OUTPUT_BYTES));
    for (let head = 0; head < HEADS; head++) {
      const wanted = expected(query.subarray(head * DIM, (head + 1) * DIM), Math.floor(head / 2), {
        start: 0,
        end: 20,
      });
      assertClose(statistics.subarray(2 * head, 2 * head + 2), [wanted.maximum, wanted.logSumExp]);
    }
  });
});

describe('carried keys and values', () => {
  const query = queries(1, HEADS);
  const fresh = bytesOf(rows(20, 1));
  const payload = Buffer.concat([bytesOf(query), fresh]);
  const carrying = (id: bigint, fields: EntryFields = {}) =>
    entryOf(id, { appendTokenCount: 1, appendPosition: 20, appendOffset: payloadAt(1) + OUTPUT_BYTES, ...fields });

  test('are appended first and attended to; a repeat of the command is safe', async (t) => {
    const { io, id } = await open(t);
    for (let i = 0; i < 2; i++) {
      const completion = await exchange(io, {}, [carrying(id)], payload, OUTPUT_BYTES);
      assert.equal(completion.status, 0);
      assertOutput(completion.data, query, 21);
      assert.equal(completion.dw1, 21);
    }
  });

  test('one append fails: DW0 is its entry, those before it stay, nothing is attended to', async (t) => {
    const { rig, io, id } = await open(t);
    const other = await createSequence(io);
    const at = payloadAt(2);
    const slot = { outKind: attendOutputs.slot, outKey: 1 };
    const entries = [
      carrying(id, { queryOffset: at, appendOffset: at + OUTPUT_BYTES, ...slot }),
      carrying(other, { queryOffset: at, appendOffset: at + OUTPUT_BYTES, ...slot, outOffset: 512 }),
    ];
    const completion = await attend(io, {}, entries, payload);
    assert.equal(completion.status, statusOf('appendGap'));
    assert.equal(completion.dw0, 1);
    assert.equal(rig.kv.summary(id).lengths[0], 21);
    assert.equal((await io.read(result(1), 4)).status, statusOf('slotEmpty'));
    await append(io, other, 0, 20);
    assert.equal((await attend(io, {}, entries, payload)).status, 0);
  });

  test('every entry sees the length after all appends of the command', async (t) => {
    const { rig, io, id } = await open(t);
    const at = payloadAt(4);
    const rowBytes = fresh.length;
    const both = Buffer.concat([bytesOf(query), fresh, bytesOf(rows(21, 1))]);
    const first = { appendTokenCount: 1, appendPosition: 20, appendOffset: at + OUTPUT_BYTES };
    const second = { appendTokenCount: 1, appendPosition: 21, appendOffset: at + OUTPUT_BYTES + rowBytes };
    const fields = [{}, first, second, { tokenEnd: 22 }];
    const entries = fields.map((more, i) => entryOf(id, { queryOffset: at, outOffset: i * OUTPUT_BYTES, ...more }));
    for (let i = 0; i < 2; i++) {
      const completion = await exchange(io, {}, entries, both, 4 * OUTPUT_BYTES);
      assert.deepEqual([completion.status, completion.dw1], [0, 4 * 22]);
      for (let entry = 0; entry < 4; entry++) {
        assertOutput(completion.data.subarray(entry * OUTPUT_BYTES, (entry + 1) * OUTPUT_BYTES), query, 22);
      }
    }
    assert.equal(rig.kv.summary(id).lengths[0], 22);
  });

  test('an output region that its client shortened: DW0 is the entry', async (t) => {
    const { io, admin, id } = await open(t);
    const { key, path } = await createRegion(admin, 4096);
    truncateSync(path, 100);
    const out = { queryOffset: payloadAt(2), outKind: attendOutputs.region, outKey: key };
    const entries = [entryOf(id, { ...out, outKind: attendOutputs.slot, outKey: 3 }), entryOf(id, out)];
    const completion = await attend(io, {}, entries, bytesOf(query));
    assert.deepEqual([completion.status, completion.dw0], [statusOf('sglDataBlock'), 1]);
    assert.equal(statSync(path).size, 100);
    assert.equal((await io.read(result(3), 4)).status, statusOf('slotEmpty'));
  });

  test('out of a region', async (t) => {
    const { io, admin, id } = await open(t);
    const { key, path } = await createRegion(admin, 4096);
    writeFileSync(path, Buffer.concat([Buffer.alloc(7), fresh]), { flag: 'r+' });
    const entry = carrying(id, { appendKey: key, appendOffset: 7 });
    const completion = await exchange(io, {}, [entry], bytesOf(query), OUTPUT_BYTES);
    assertOutput(completion.data, query, 21);
  });
});

/** One change to a good command of one entry, and the status it gets. */
type Change = (bytes: Buffer) => unknown;
const header: readonly (readonly [string, Change, Parameters<typeof statusOf>[0]])[] = [
  ['version 0', (bytes) => bytes.writeUInt16LE(0, 0), 'unsupportedVersion'],
  ['mode 1', (bytes) => bytes.writeUInt8(1, 2), 'attendMode'],
  ['flags', (bytes) => bytes.writeUInt8(8, 3), 'invalidField'],
  ['no entries', (bytes) => bytes.writeUInt16LE(0, 4), 'invalidField'],
  ['more entries than allowed', (bytes) => bytes.writeUInt16LE(1025, 4), 'invalidField'],
  ['more entries than data', (bytes) => bytes.writeUInt16LE(4, 4), 'sglDataLength'],
  ['query type 0', (bytes) => bytes.writeUInt8(0, 6), 'invalidField'],
  ['query type int8', (bytes) => bytes.writeUInt8(4, 6), 'invalidField'],
  ['query type 9', (bytes) => bytes.writeUInt8(9, 6), 'invalidField'],
  ['output type int4', (bytes) => bytes.writeUInt8(5, 7), 'invalidField'],
  ['output type 0', (bytes) => bytes.writeUInt8(0, 7), 'invalidField'],
  ['scale NaN', (bytes) => bytes.writeFloatLE(Number.NaN, 8), 'invalidField'],
  ['scale infinite', (bytes) => bytes.writeFloatLE(Number.POSITIVE_INFINITY, 8), 'invalidField'],
  ['soft cap negative', (bytes) => bytes.writeFloatLE(-1, 12), 'invalidField'],
  ['soft cap infinite', (bytes) => bytes.writeFloatLE(Number.POSITIVE_INFINITY, 12), 'invalidField'],
  ['append type', (bytes) => bytes.writeUInt8(9, 24), 'invalidField'],
  ['first reserved byte of the header', (bytes) => bytes.writeUInt8(1, 25), 'invalidField'],
  ['last reserved byte of the header', (bytes) => bytes.writeUInt8(1, 63), 'invalidField'],
];
const E = 64;
const entry: readonly (readonly [string, Change, Parameters<typeof statusOf>[0]])[] = [
  ['unknown sequence', (bytes) => bytes.writeUInt32LE(99, E), 'unknownSequence'],
  ['layer', (bytes) => bytes.writeUInt16LE(2, E + 8), 'layerRange'],
  ['query heads per KV head 0', (bytes) => bytes.writeUInt16LE(0, E + 10), 'headRange'],
  ['query heads per KV head 129', (bytes) => bytes.writeUInt16LE(129, E + 10), 'headRange'],
  ['first head beyond all', (bytes) => bytes.writeUInt16LE(1, E + 12), 'headRange'],
  ['too many heads', (bytes) => bytes.writeUInt16LE(5, E + 14), 'headRange'],
  ['no query tokens', (bytes) => bytes.writeUInt16LE(0, E + 16), 'tokenRange'],
  ['too many query tokens', (bytes) => bytes.writeUInt16LE(4097, E + 16), 'tokenRange'],
  ['append position without append', (bytes) => bytes.writeUInt32LE(1, E + 32), 'invalidField'],
  ['append key without append', (bytes) => bytes.writeUInt32LE(1, E + 56), 'invalidField'],
  ['query position beyond the limit', (bytes) => bytes.writeUInt32LE(0xffff_ffff, E + 20), 'tokenRange'],
  ['start behind the end', (bytes) => (bytes.writeUInt32LE(5, E + 24), bytes.writeUInt32LE(4, E + 28)), 'tokenRange'],
  ['end beyond the length', (bytes) => bytes.writeUInt32LE(21, E + 28), 'tokenRange'],
  ['start beyond the limit', (bytes) => bytes.writeUInt32LE(0x8000_0000, E + 24), 'tokenRange'],
  ['first reserved byte of the entry', (bytes) => bytes.writeUInt8(1, E + 36), 'invalidField'],
  ['last reserved byte of the entry', (bytes) => bytes.writeUInt8(1, E + 95), 'invalidField'],
  ['unknown query region', (bytes) => bytes.writeUInt32LE(77, E + 40), 'sglDataBlock'],
  ['queries behind the data', (bytes) => bytes.writeUInt32LE(payloadAt(1) + 4, E + 48), 'sglOffset'],
  ['query offset 2^63', (bytes) => bytes.writeUInt32LE(0x8000_0000, E + 52), 'sglOffset'],
  [
    'append behind the data',
    (bytes) => bytes.writeUInt16LE(1, E + 18) && bytes.writeUInt32LE(400, E + 64),
    'sglOffset',
  ],
  [
    'append beyond the limit',
    (bytes) => bytes.writeUInt16LE(1, E + 18) && bytes.writeUInt32LE(0x7fff_ffff, E + 32),
    'tokenRange',
  ],
  ['output kind 3', (bytes) => bytes.writeUInt8(3, E + 72), 'invalidField'],
  ['key for exchange', (bytes) => bytes.writeUInt32LE(1, E + 76), 'invalidField'],
  ['output behind the data', (bytes) => bytes.writeUInt32LE(4, E + 80), 'sglDataLength'],
  ['output offset 2^63', (bytes) => bytes.writeUInt32LE(0x8000_0000, E + 84), 'sglDataLength'],
  ['unknown output region', (bytes) => bytes.writeUInt8(1, E + 72) && bytes.writeUInt32LE(77, E + 76), 'sglDataBlock'],
  ['slot number', (bytes) => bytes.writeUInt8(2, E + 72) && bytes.writeUInt32LE(64, E + 76), 'slotLimit'],
  ['slot size', (bytes) => bytes.writeUInt8(2, E + 72) && bytes.writeUInt32LE(64 << 20, E + 80), 'slotLimit'],
];

describe('a bad descriptor', () => {
  const query = bytesOf(queries(1, HEADS));
  for (const [what, change, code] of [...header, ...entry]) {
    test(`${what}: ${code}`, async (t) => {
      const { rig, io, id } = await open(t);
      const used = rig.arena.freeBytes;
      const bytes = Buffer.from(attendBytes({}, [entryOf(id)], query));
      change(bytes);
      const completion = await io.run(command(kvOpcodes.attendExchange.opcode, { cdw10: OUTPUT_BYTES }), bytes);
      assert.equal(completion.status, statusOf(code));
      assert.equal(completion.data.length, 0);
      assert.deepEqual(rig.fatals, []);
      assert.equal(rig.arena.freeBytes, used);
      assert.equal(rig.subsystem.snapshot().associations[0]?.slotCount, 0);
      assert.equal(rig.kv.summary(id).lengths[0], 20);
    });
  }

  test('shorter than a header; kind exchange in a plain attend; too much to return', async (t) => {
    const { io, id } = await open(t);
    assert.equal((await io.run(command(kvOpcodes.attend.opcode), Buffer.alloc(60))).status, statusOf('sglDataLength'));
    assert.equal((await io.run(command(kvOpcodes.attend.opcode))).status, statusOf('sglDataLength'));
    assert.equal((await attend(io, {}, [entryOf(id)], query)).status, statusOf('invalidField'));
    assert.equal((await exchange(io, {}, [entryOf(id)], query, (1 << 20) + 1)).status, statusOf('invalidField'));
  });

  test('the second entry is wrong: DW0 says so, and the first has claimed nothing', async (t) => {
    const { rig, io, id } = await open(t);
    const entries = [
      entryOf(id, { queryOffset: payloadAt(2), outKind: attendOutputs.slot, outKey: 0 }),
      entryOf(id, { queryOffset: payloadAt(2), outKind: attendOutputs.slot, outKey: 1, layer: 7 }),
    ];
    const completion = await attend(io, {}, entries, query);
    assert.deepEqual([completion.status, completion.dw0], [statusOf('layerRange'), 1]);
    assert.equal(rig.subsystem.snapshot().associations[0]?.slotCount, 0);
  });

  test('query rows and bytes of one command are bounded', async (t) => {
    const { io, id } = await open(t, { limits: { queryRowCountMax: 7 } });
    const entries = [
      entryOf(id, { queryOffset: payloadAt(2) }),
      entryOf(id, { queryOffset: payloadAt(2), outOffset: OUTPUT_BYTES }),
    ];
    const completion = await exchange(io, {}, entries, query, 2 * OUTPUT_BYTES);
    assert.deepEqual([completion.status, completion.dw0], [statusOf('invalidField'), 1]);
  });
});

describe('attend result', () => {
  test('bad slots and ranges', async (t) => {
    const { io, id } = await open(t);
    assert.equal((await io.read(result(0), 4)).status, statusOf('slotEmpty'));
    assert.equal((await io.read(result(64), 4)).status, statusOf('slotLimit'));
    await attend(io, {}, [entryOf(id, { outKind: attendOutputs.slot })], bytesOf(queries(1, HEADS)));
    assert.equal((await io.read(result(0, 4), OUTPUT_BYTES)).status, statusOf('sglDataLength'));
    assert.equal((await io.read(result(0, 0xffff_fff0), 32)).status, statusOf('sglDataLength'));
    assert.equal((await io.read({ ...result(0), cdw12: 2 }, 4)).status, statusOf('invalidField'));
    // None of that freed it.
    assert.equal((await io.read(result(0), OUTPUT_BYTES)).status, 0);
  });

  test('slots of another association are another matter', async (t) => {
    const { rig, io, id } = await open(t);
    await attend(io, {}, [entryOf(id, { outKind: attendOutputs.slot })], bytesOf(queries(1, HEADS)));
    const other = await rig.admin();
    const foreign = await rig.io(other.cntlid);
    assert.equal((await foreign.read(result(0), 4)).status, statusOf('slotEmpty'));
  });

  test('a slot is taken while its command runs, and free again if the association ends', async (t) => {
    const { rig, io, admin, id } = await open(t);
    rig.attention.gate.shut();
    io.send(
      { ...command(kvOpcodes.attend.opcode) },
      attendBytes({}, [entryOf(id, { outKind: attendOutputs.slot })], bytesOf(queries(1, HEADS))),
    );
    while (rig.attention.gate.waitingCount === 0) await new Promise((resolve) => setImmediate(resolve));
    assert.equal((await io.read(result(0), 4)).status, statusOf('slotEmpty'));
    admin.close();
    await io.untilClosed();
    rig.attention.gate.open();
    while (rig.subsystem.snapshot().inFlightCount > 0) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(rig.fatals, []);
  });
});
