/**
 * Every command, every field that it does not use, every way of saying it wrongly: command x field x bad value ->
 * status. The good commands below are complete; whatever bit is not in `uses` must be zero.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, directionOf, FABRICS_OPCODE, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { dwordNames, type DwordName } from '../../daemon/commands/contract.ts';
import type { CommandFields, RawHost } from '../controller/raw-host.ts';
import { createRig, type Rig } from '../controller/rig.ts';
import {
  append,
  attendBytes,
  bytesOf,
  createBytes,
  createSequence,
  queries,
  rows,
  statusOf,
  transfer,
} from './kv-host.ts';

const ALL = 0xffff_ffff;
const LBA = 4096;

interface Row {
  readonly queue: 'admin' | 'nvm' | 'kv';
  readonly name: string;
  readonly fields: CommandFields;
  /** Bits that mean something, by dword. */
  readonly uses: Partial<Record<DwordName, number>>;
  /** Data that the host sends. */
  readonly data?: Uint8Array;
  /** Bytes that it takes. */
  readonly takes?: number;
  /** Namespaces: 'none' wants 0, 'any' has rules of its own. */
  readonly nsid: 'none' | 'any' | 'one' | 'oneOrAll';
}

const ID = 5;
const kv = (row: { opcode: number }, dwords: Partial<Record<DwordName, number>> = {}): CommandFields => ({
  opcode: row.opcode,
  nsid: KV_CACHE_NSID,
  ...dwords,
});
const nvm = (row: { opcode: number }, dwords: Partial<Record<DwordName, number>> = {}): CommandFields => ({
  opcode: row.opcode,
  nsid: BLOCK_NSID,
  ...dwords,
});
const admin = (row: { opcode: number }, dwords: Partial<CommandFields> = {}): CommandFields => ({
  opcode: row.opcode,
  ...dwords,
});

const sequence = { cdw10: ALL, cdw11: ALL };
const kvTransfer = 0xffff | (0xff << 16) | (1 << 24);
const nvmTransfer = (0xffff | (1 << 30) | (1 << 31)) >>> 0;
const attendData = attendBytes(
  {},
  [{ sequenceId: BigInt(ID), queryHeadsPerKvHead: 1, queryTokenCount: 1, tokenEnd: 4, queryOffset: 160, outKind: 2 }],
  bytesOf(queries(1, 2)),
);
const exchangeData = attendBytes(
  {},
  [{ sequenceId: BigInt(ID), queryHeadsPerKvHead: 1, queryTokenCount: 1, tokenEnd: 4, queryOffset: 160 }],
  bytesOf(queries(1, 2)),
);
const forkData = createBytes({
  layerCount: 0,
  kvHeadCount: 0,
  headDimK: 0,
  headDimV: 0,
  elementTypeK: 0,
  elementTypeV: 0,
});
const dsmData = Buffer.alloc(16);
dsmData.writeUInt32LE(1, 4);

const table: readonly Row[] = [
  {
    queue: 'admin',
    name: 'Format NVM',
    fields: admin(adminOpcodes.formatNvm, { nsid: BLOCK_NSID }),
    uses: { cdw10: 0x3fff },
    nsid: 'any',
  },
  {
    queue: 'admin',
    name: 'Get Log Page',
    fields: admin(adminOpcodes.getLogPage, { cdw10: 0x02 | (127 << 16) }),
    uses: { cdw10: ALL, cdw11: ALL, cdw12: ALL, cdw13: ALL, cdw14: 0xff80_007f },
    takes: 512,
    nsid: 'any',
  },
  {
    queue: 'admin',
    name: 'Identify',
    fields: admin(adminOpcodes.identify, { cdw10: 1 }),
    uses: { cdw10: 0xffff_00ff, cdw11: 0xff00_ffff, cdw14: 0x7f },
    takes: 4096,
    nsid: 'any',
  },
  {
    queue: 'admin',
    name: 'Set Features',
    fields: admin(adminOpcodes.setFeatures, { cdw10: 0x06, cdw11: 1 }),
    uses: { cdw10: 0x8000_00ff, cdw11: ALL },
    nsid: 'any',
  },
  {
    queue: 'admin',
    name: 'Get Features',
    fields: admin(adminOpcodes.getFeatures, { cdw10: 0x06 }),
    uses: { cdw10: 0x7ff },
    nsid: 'any',
  },
  { queue: 'admin', name: 'Abort', fields: admin(adminOpcodes.abort), uses: { cdw10: ALL }, nsid: 'none' },
  { queue: 'admin', name: 'Keep Alive', fields: admin(adminOpcodes.keepAlive), uses: {}, nsid: 'none' },
  {
    queue: 'admin',
    name: 'Memory Region Create',
    fields: admin(adminOpcodes.regionCreate, { cdw10: 4096 }),
    uses: { cdw10: ALL, cdw11: ALL },
    takes: 512,
    nsid: 'none',
  },
  { queue: 'nvm', name: 'Flush', fields: nvm(nvmOpcodes.flush), uses: {}, nsid: 'oneOrAll' },
  {
    queue: 'nvm',
    name: 'Write',
    fields: nvm(nvmOpcodes.write),
    uses: { cdw10: ALL, cdw11: ALL, cdw12: nvmTransfer, cdw13: 0xff },
    data: Buffer.alloc(LBA, 3),
    nsid: 'one',
  },
  {
    queue: 'nvm',
    name: 'Compare',
    fields: nvm(nvmOpcodes.compare),
    uses: { cdw10: ALL, cdw11: ALL, cdw12: nvmTransfer },
    data: Buffer.alloc(LBA, 3),
    nsid: 'one',
  },
  {
    queue: 'nvm',
    name: 'Verify',
    fields: nvm(nvmOpcodes.verify),
    uses: { cdw10: ALL, cdw11: ALL, cdw12: nvmTransfer },
    nsid: 'one',
  },
  {
    queue: 'nvm',
    name: 'Read',
    fields: nvm(nvmOpcodes.read),
    uses: { cdw10: ALL, cdw11: ALL, cdw12: nvmTransfer, cdw13: 0xff },
    takes: LBA,
    nsid: 'one',
  },
  {
    queue: 'nvm',
    name: 'Write Zeroes',
    fields: nvm(nvmOpcodes.writeZeroes),
    uses: { cdw10: ALL, cdw11: ALL, cdw12: (nvmTransfer | (1 << 25)) >>> 0, cdw13: 0xff },
    nsid: 'one',
  },
  {
    queue: 'nvm',
    name: 'Dataset Management',
    fields: nvm(nvmOpcodes.datasetManagement, { cdw11: 4 }),
    uses: { cdw10: 0xff, cdw11: 7 },
    data: dsmData,
    nsid: 'one',
  },
  { queue: 'kv', name: 'Flush', fields: kv(kvOpcodes.flush), uses: {}, nsid: 'oneOrAll' },
  { queue: 'kv', name: 'KV Create', fields: kv(kvOpcodes.create), uses: {}, data: createBytes(), nsid: 'one' },
  {
    queue: 'kv',
    name: 'KV Append',
    fields: kv(kvOpcodes.append, { cdw10: ID, cdw14: 4 }),
    uses: { ...sequence, cdw12: kvTransfer | (1 << 30), cdw13: ALL, cdw14: ALL },
    data: bytesOf(rows(0, 4)),
    nsid: 'one',
  },
  {
    queue: 'kv',
    name: 'KV Fork',
    fields: kv(kvOpcodes.fork, { cdw10: ID, cdw12: 2 }),
    uses: { ...sequence, cdw12: ALL },
    data: forkData,
    nsid: 'one',
  },
  {
    queue: 'kv',
    name: 'KV Truncate',
    fields: kv(kvOpcodes.truncate, { cdw10: ID, cdw12: 1 }),
    uses: { ...sequence, cdw12: 0xffff, cdw13: ALL },
    nsid: 'one',
  },
  {
    queue: 'kv',
    name: 'KV Query',
    fields: kv(kvOpcodes.query, { cdw10: ID }),
    uses: { ...sequence, cdw12: ALL },
    takes: 256,
    nsid: 'one',
  },
  {
    queue: 'kv',
    name: 'KV Read Back',
    fields: kv(kvOpcodes.readBack, { cdw10: ID, cdw12: transfer({ part: 1 }), cdw14: 1 }),
    uses: { ...sequence, cdw12: kvTransfer | (3 << 25), cdw13: ALL, cdw14: ALL, cdw15: ALL },
    takes: 64,
    nsid: 'one',
  },
  { queue: 'kv', name: 'ATTN', fields: kv(kvOpcodes.attend), uses: {}, data: attendData, nsid: 'one' },
  {
    queue: 'kv',
    name: 'ATTN Result',
    fields: kv(kvOpcodes.attendResult, { cdw12: 1 }),
    uses: { ...sequence, cdw12: 1 },
    takes: 64,
    nsid: 'one',
  },
  {
    queue: 'kv',
    name: 'ATTN Exchange',
    fields: kv(kvOpcodes.attendExchange, { cdw10: 64 }),
    uses: { cdw10: ALL },
    data: exchangeData,
    nsid: 'one',
  },
  // Last, since it takes away what the others work on.
  { queue: 'kv', name: 'KV Reclaim', fields: kv(kvOpcodes.reclaim, { cdw10: ID }), uses: sequence, nsid: 'one' },
];

const statusOfRow = async (host: RawHost, row: Row, change: Partial<CommandFields>, data = row.data) => {
  const sgl = row.takes === undefined ? undefined : ({ kind: 'transport', length: row.takes } as const);
  host.send({ ...row.fields, ...(sgl ? { sgl } : {}), ...change }, data);
  return (await host.completion()).status;
};

async function open(rig: Rig): Promise<Record<Row['queue'], RawHost>> {
  const { host, cntlid } = await rig.admin();
  const io = await rig.io(cntlid);
  await createSequence(io, { sequenceId: BigInt(ID) });
  await append(io, BigInt(ID), 0, 4);
  return { admin: host, nvm: io, kv: io };
}

test('every opcode of the tables is here, but those that a repetition would answer otherwise: they have own tests', () => {
  for (const [queue, rowsOf] of Object.entries({ admin: adminOpcodes, nvm: nvmOpcodes, kv: kvOpcodes })) {
    const listed = table.filter((row) => row.queue === queue).map((row) => row.fields.opcode);
    const missing = Object.values(rowsOf).filter(({ opcode }) => !listed.includes(opcode));
    assert.deepEqual(
      missing.map(({ name }) => name),
      queue === 'admin' ? ['Asynchronous Event Request', 'Memory Region Delete'] : [],
    );
  }
});

describe('command x field x bad value', () => {
  test('the good commands are good', async (t) => {
    const hosts = await open(await createRig(t));
    for (const row of table) assert.equal(await statusOfRow(hosts[row.queue], row, {}), 0, `${row.queue} ${row.name}`);
  });

  test('each reserved bit', async (t) => {
    const hosts = await open(await createRig(t));
    for (const row of table) {
      for (const name of dwordNames) {
        for (let bit = 0; bit < 32; bit++) {
          const mask = 2 ** bit;
          if (((row.uses[name] ?? 0) & mask) !== 0) continue;
          const status = await statusOfRow(hosts[row.queue], row, { [name]: ((row.fields[name] ?? 0) | mask) >>> 0 });
          assert.equal(status, statusOf('invalidField'), `${row.queue} ${row.name} ${name} bit ${bit}`);
        }
      }
    }
  });

  test('each reserved bit of region delete, a namespace, a key that nobody has', async (t) => {
    const { host } = await (await createRig(t)).admin();
    const { opcode } = adminOpcodes.regionDelete;
    for (const name of dwordNames) {
      for (let bit = 0; bit < 32; bit++) {
        if (name === 'cdw10') continue;
        const { status } = await host.run({ opcode, [name]: 2 ** bit });
        assert.equal(status, statusOf('invalidField'), `${name} bit ${bit}`);
      }
    }
    for (const nsid of [1, ALL]) {
      assert.equal((await host.run({ opcode, nsid })).status, statusOf('invalidNamespace'), `namespace ${nsid}`);
    }
    for (const key of [0, 1, ALL]) {
      assert.equal((await host.run({ opcode, cdw10: key })).status, statusOf('sglDataBlock'), `key ${key}`);
    }
  });

  test('each reserved bit of Asynchronous Event Request, a namespace', async (t) => {
    const { host } = await (await createRig(t)).admin();
    const { opcode } = adminOpcodes.asyncEventRequest;
    for (const name of dwordNames) {
      for (let bit = 0; bit < 32; bit++) {
        const { status } = await host.run({ opcode, [name]: 2 ** bit });
        assert.equal(status, statusOf('invalidField'), `${name} bit ${bit}`);
      }
    }
    for (const nsid of [1, ALL]) {
      assert.equal((await host.run({ opcode, nsid })).status, statusOf('invalidNamespace'), `namespace ${nsid}`);
    }
  });

  test('FUSE, PSDT, and a metadata pointer', async (t) => {
    const hosts = await open(await createRig(t));
    for (const row of table) {
      for (const flags of [0x00, 0x41, 0x42, 0x43, 0x44, 0x80, 0xc0]) {
        const status = await statusOfRow(hosts[row.queue], row, { flags });
        assert.equal(status, statusOf('invalidField'), `${row.name} flags ${flags}`);
      }
      const host = hosts[row.queue];
      for (const byte of [16, 23]) {
        const sgl = row.data
          ? ({ kind: 'inCapsule', offset: 0, length: row.data.length } as const)
          : row.takes === undefined
            ? ({ kind: 'none' } as const)
            : ({ kind: 'transport', length: row.takes } as const);
        const entry = host.entryBytes({ ...row.fields, sgl }, host.commandId());
        entry[byte] = 1;
        host.write(host.capsuleBytes(entry, row.data));
        assert.equal((await host.completion()).status, statusOf('invalidField'), `${row.name} byte ${byte}`);
      }
    }
  });

  test('namespaces', async (t) => {
    const hosts = await open(await createRig(t));
    for (const row of table) {
      const host = hosts[row.queue];
      const status = (nsid: number) => statusOfRow(host, row, { nsid });
      if (row.nsid === 'none') {
        for (const nsid of [1, 2, ALL]) assert.equal(await status(nsid), statusOf('invalidNamespace'), row.name);
      }
      if (row.queue === 'admin') continue;
      for (const nsid of [0, 3, 0xffff_fffe]) assert.equal(await status(nsid), statusOf('invalidNamespace'), row.name);
      const all = await status(ALL);
      if (row.nsid === 'oneOrAll') assert.equal(all, 0, row.name);
      else assert.notEqual(all, 0, row.name);
    }
  });

  test('SGL types and directions', async (t) => {
    const rig = await createRig(t);
    const hosts = await open(rig);
    for (const row of table) {
      const host = hosts[row.queue];
      const raw = (type: number, length = 64) => {
        const bytes = new Uint8Array(16);
        new DataView(bytes.buffer).setUint32(8, length, true);
        bytes[15] = type;
        return bytes;
      };
      const status = async (sglBytes: Uint8Array) => {
        host.write(host.capsuleBytes(host.entryBytes({ ...row.fields, sglBytes }, host.commandId())));
        return (await host.completion()).status;
      };
      for (const type of [0x00, 0x02, 0x10, 0x20, 0x30, 0x41, 0x50, 0x5b, 0xf0]) {
        assert.equal(await status(raw(type)), statusOf('sglType'), `${row.name} type ${type}`);
      }
      const reserved = raw(0x5a);
      reserved[12] = 1;
      assert.equal(await status(reserved), statusOf('sglInvalid'), row.name);
      assert.equal(await status(raw(0x5a, (1 << 20) + 1)), statusOf('invalidField'), `${row.name} above MDTS`);
      assert.equal(await status(raw(0x40)), statusOf('sglDataBlock'), `${row.name} key 0`);
      const direction = directionOf(row.fields.opcode);
      if (direction === 2) assert.equal(await status(raw(0x01)), statusOf('sglType'), row.name);
      if (direction === 0) assert.equal(await status(raw(0x5a)), statusOf('sglDataLength'), row.name);
    }
    assert.deepEqual(rig.fatals, []);
  });

  test('data of another length', async (t) => {
    const rig = await createRig(t);
    const hosts = await open(rig);
    for (const row of table) {
      const host = hosts[row.queue];
      // The length says how much is wanted of a query or a slot.
      if (row.name === 'KV Query' || row.name === 'ATTN Result' || row.name.startsWith('ATTN')) continue;
      if (row.data) {
        for (const length of [row.data.length - 4, row.data.length + 4]) {
          if (row.name === 'Dataset Management' && length > row.data.length) continue;
          const status = await statusOfRow(host, row, {}, Buffer.alloc(length));
          assert.equal(status, statusOf('sglDataLength'), `${row.name} ${length} bytes`);
        }
      } else if (row.takes !== undefined) {
        for (const length of [row.takes - 4, row.takes + 4]) {
          const status = await statusOfRow(host, row, { sgl: { kind: 'transport', length } });
          assert.equal(status, statusOf('sglDataLength'), `${row.name} ${length} bytes`);
        }
      }
    }
  });

  test('opcodes that are none', async (t) => {
    const hosts = await open(await createRig(t));
    for (const [queue, rowsOf] of Object.entries({ admin: adminOpcodes, nvm: nvmOpcodes, kv: kvOpcodes })) {
      const known = new Set<number>(Object.values(rowsOf).map(({ opcode }) => opcode));
      const nsid = { admin: 0, nvm: BLOCK_NSID, kv: KV_CACHE_NSID }[queue] as number;
      const host = hosts[queue as Row['queue']];
      for (let opcode = 0; opcode < 256; opcode++) {
        if (known.has(opcode) || opcode === FABRICS_OPCODE) continue;
        assert.equal((await host.run({ opcode, nsid })).status, statusOf('invalidOpcode'), `${queue} ${opcode}`);
      }
    }
  });
});
