/** A drive that wears out until it is read-only, as hosts see it: what is refused, what goes on, what tells it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identifyNamespace, independentNamespace } from '../../spec/identify.ts';
import { ALL_TOKENS, BLOCK_NSID, createDescriptor, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { driveStatistics, enduranceGroupLog, logPages, smartLog } from '../../spec/log-pages.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes } from '../../spec/opcodes.ts';
import { ControlView } from '../../daemon/control-view.ts';
import { takeMetrics } from '../../daemon/metrics-view.ts';
import { noFailures } from '../../daemon/nand/failures.ts';
import type { CommandFields, RawHost } from '../controller/raw-host.ts';
import { formatFolder, openWholeDrive, type WholeDrive } from '../controller/whole-drive.ts';
import {
  append,
  assertClose,
  attendBytes,
  bytesOf,
  createBytes,
  createSequence,
  expected,
  floatsOf,
  idFields,
  payloadAt,
  queries,
  rows,
  statusOf,
} from './kv-host.ts';

const LBA = 4096;
const HEADS = 4;
const DIM = 8;
const OUTPUT_BYTES = HEADS * DIM * 4;
const blocks = (row: { opcode: number }, lba: number, lbaCount = 1) => ({
  opcode: row.opcode,
  nsid: BLOCK_NSID,
  cdw10: lba,
  cdw12: lbaCount - 1,
});
const PROTECTED = statusOf('namespaceWriteProtected');

/** Superblocks whose blocks refuse to be erased, once it is told to. */
function failing() {
  const failures = { ...noFailures, areErasesFailing: false, eraseFails: (): boolean => failures.areErasesFailing };
  return failures;
}

/** Writes until the drive refuses. */
async function wearOut(io: RawHost, lbaCount: number): Promise<void> {
  for (let i = 0; i < 100_000; i++) {
    const { status } = await io.run(blocks(nvmOpcodes.write, 8 + (i % (lbaCount - 8))), new Uint8Array(LBA).fill(i));
    if (status === PROTECTED) return;
    assert.equal(status, 0, `write ${i}`);
  }
  assert.fail('it never became read-only');
}

async function assertRefusals(admin: RawHost, io: RawHost, id: bigint): Promise<void> {
  const run = async (fields: object, data?: Uint8Array): Promise<number> =>
    (await io.run(fields as CommandFields, data)).status;
  const deallocation = new Uint8Array(16);
  new DataView(deallocation.buffer).setUint32(4, 1, true);
  const dataset = { opcode: nvmOpcodes.datasetManagement.opcode, nsid: BLOCK_NSID, cdw10: 0, cdw11: 4 };
  assert.equal(await run(blocks(nvmOpcodes.write, 0), new Uint8Array(LBA)), PROTECTED);
  assert.equal(await run(blocks(nvmOpcodes.writeZeroes, 0)), PROTECTED);
  assert.equal(await run(dataset, deallocation), PROTECTED);
  assert.equal(await run({ opcode: kvOpcodes.create.opcode, nsid: KV_CACHE_NSID }, createBytes()), PROTECTED);
  assert.equal((await append(io, id, 40, 1)).status, PROTECTED);
  const format = { opcode: adminOpcodes.formatNvm.opcode, cdw10: 0 };
  for (const nsid of [1, 2]) assert.equal((await admin.run({ ...format, nsid })).status, PROTECTED, `format ${nsid}`);
  const fork = { opcode: kvOpcodes.fork.opcode, ...idFields(id), cdw12: 3 };
  assert.equal(await run(fork, createDescriptor.encode({ version: 1 })), PROTECTED);
  assert.equal(await run({ opcode: kvOpcodes.truncate.opcode, ...idFields(id), cdw12: 0xffff, cdw13: 1 }), PROTECTED);
}

/** Attention of one query over all tokens, with new tokens if `carried`. */
function attend(io: RawHost, id: bigint, carried?: { position: number; tokenCount: number }) {
  const query = bytesOf(queries(1, HEADS));
  const payload = carried ? Buffer.concat([query, bytesOf(rows(carried.position, carried.tokenCount))]) : query;
  const entry = {
    sequenceId: id,
    queryHeadsPerKvHead: 2,
    queryTokenCount: 1,
    tokenEnd: ALL_TOKENS,
    queryOffset: payloadAt(1),
    ...(carried && {
      appendPosition: carried.position,
      appendTokenCount: carried.tokenCount,
      appendOffset: payloadAt(1) + query.length,
    }),
  };
  const fields = { opcode: kvOpcodes.attendExchange.opcode, nsid: KV_CACHE_NSID, cdw10: OUTPUT_BYTES };
  return io.run(fields, attendBytes({}, [entry], payload));
}

async function assertServes(io: RawHost, id: bigint): Promise<void> {
  const { status, data } = await io.read(blocks(nvmOpcodes.read, 0, 8), 8 * LBA);
  assert.equal(status, 0);
  assert.ok(data.every((byte) => byte === 7));
  const attended = await attend(io, id);
  assert.equal(attended.status, 0);
  const { output } = expected(queries(1, HEADS).subarray(0, DIM), 0, { start: 0, end: 40 });
  assertClose(floatsOf(attended.data).subarray(0, DIM), output, 1e-4);
  assert.equal((await append(io, id, 30, 10)).status, 0, 'a repeat changes nothing');
  assert.equal((await io.run({ opcode: nvmOpcodes.flush.opcode, nsid: BLOCK_NSID })).status, 0);
}

async function readLogs(admin: RawHost) {
  const log = async ({ lid, sizeBytes }: { lid: number; sizeBytes: number }, identifier = 0) => {
    const dwords = { cdw10: (lid | ((sizeBytes / 4 - 1) << 16)) >>> 0, cdw11: identifier << 16 };
    return (await admin.read({ opcode: adminOpcodes.getLogPage.opcode, ...dwords }, sizeBytes)).data;
  };
  return {
    smart: smartLog.decode(await log(logPages.smart)),
    endurance: enduranceGroupLog.decode(await log(logPages.enduranceGroup, 1)),
    statistics: driveStatistics.decode(await log(logPages.driveStatistics)),
  };
}

async function assertTold(drive: WholeDrive, admin: RawHost): Promise<void> {
  const { smart, endurance, statistics } = await readLogs(admin);
  const spareLowAndReadOnly = 0b1001;
  assert.deepEqual([smart.criticalWarning, smart.availSpare], [spareLowAndReadOnly, 0]);
  assert.equal(smart.enduranceGrpCriticalWarningSummary, spareLowAndReadOnly);
  assert.deepEqual([endurance.criticalWarning, endurance.avlSpare], [spareLowAndReadOnly, 0]);
  const { badSuperblocks, badBlocksErase, badBlocksFactory, readOnly, eraseCountMax } = statistics;
  assert.equal(badSuperblocks, drive.ftl.snapshot().superblocksByState['bad']);
  assert.ok(badBlocksErase >= badSuperblocks && badBlocksFactory === 0);
  assert.deepEqual([readOnly, eraseCountMax], [1, drive.ftl.snapshot().endurance.eraseCountMax]);
  const identify = async (cns: number, nsid: number) =>
    (await admin.read({ opcode: adminOpcodes.identify.opcode, nsid, cdw10: cns }, 4096)).data;
  assert.equal(identifyNamespace.decode(await identify(0, 1)).nsattr, 1);
  for (const nsid of [1, 2]) assert.equal(independentNamespace.decode(await identify(8, nsid)).nsattr, 1);
  const view = new ControlView(drive.running);
  const { ready, readOnly: isHealthReadOnly, detail } = view.health();
  assert.deepEqual([ready, isHealthReadOnly], [true, true]);
  assert.match(detail, /read-only/);
  assert.equal(view.blockSummary().badBlocks['erase'], badBlocksErase);
  assert.equal(view.superblocks(-1, 1e6, 'bad').length, badSuperblocks);
  const metrics = takeMetrics(drive.running);
  assert.equal(metrics.readOnly, 1);
  assert.deepEqual(
    metrics.flashBlocksBad?.map(({ value }) => value),
    [0, 0, badBlocksErase],
  );
}

test('a drive that is read-only refuses what changes it, serves the rest, and says so, also after a restart', async (t) => {
  const folder = await formatFolder(t);
  const failures = failing();
  let drive = await openWholeDrive(folder, { failures });
  t.after(() => drive.close().catch(() => undefined));
  let { admin, io } = await drive.connect();
  const whole = new Uint8Array(8 * LBA).fill(7);
  assert.equal((await io.run(blocks(nvmOpcodes.write, 0, 8), whole)).status, 0);
  const id = await createSequence(io, { groupTokens: 32 });
  assert.equal((await append(io, id, 0, 40)).status, 0);
  const before = await readLogs(admin);
  assert.deepEqual([before.smart.criticalWarning, before.smart.availSpare], [0, 100]);
  failures.areErasesFailing = true;
  await wearOut(io, drive.lbaCount);
  await assertRefusals(admin, io, id);
  assert.equal((await attend(io, id, { position: 40, tokenCount: 1 })).status, PROTECTED);
  await assertServes(io, id);
  await assertTold(drive, admin);
  await drive.close();
  assert.deepEqual(drive.fatals, []);

  drive = await openWholeDrive(folder);
  ({ admin, io } = await drive.connect());
  await assertRefusals(admin, io, id);
  await assertServes(io, id);
  await assertTold(drive, admin);
  assert.equal((await io.run({ opcode: kvOpcodes.reclaim.opcode, ...idFields(id) })).status, 0);
  assert.equal((await attend(io, id)).status, statusOf('unknownSequence'));
  await drive.close();
  assert.deepEqual(drive.fatals, []);
});
