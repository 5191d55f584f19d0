/** Hosts beside each other on one drive: none sees, names, changes or crowds out what another owns. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { DriveClient, type DriveCommandError, type Sequence } from '../../client/index.ts';
import { packBits } from '../../spec/bits.ts';
import { createDescriptor, DESCRIPTOR_VERSION, KV_CACHE_NSID, kvTransferBits } from '../../spec/kv-commands.ts';
import { adminOpcodes, kvOpcodes } from '../../spec/opcodes.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { rows, runningDrive, shape } from './served-drive.ts';

const nqnOf = (name: string): string => `nqn.2026-11.dev.attndrive.test:${name}`;
const folder = mkdtempSync(join(tmpdir(), 'isolation-'));
const hostsPath = join(folder, 'hosts.json');
const KV_BYTES = 256 * 1024;
const ROW_BYTES = shape.kvHeadCount * shape.headDimK * 4;
const hosts = [
  { nqn: nqnOf('a') },
  { nqn: nqnOf('b') },
  { nqn: nqnOf('small'), quotas: { sequences: 3, kvBytes: KV_BYTES } },
  { nqn: nqnOf('keeper'), sequences: 'all' },
];
const daemon = new DaemonProcess('16MiB');
const arguments_ = ['--tcp', '127.0.0.1:0', '--hosts', hostsPath];
const clients: DriveClient[] = [];

async function connect(name: string): Promise<DriveClient> {
  const client = await DriveClient.connect(`tcp:${runningDrive(daemon).tcp}`, { hostNqn: nqnOf(name) });
  clients.push(client);
  return client;
}

before(async () => {
  writeFileSync(hostsPath, JSON.stringify({ hosts }), { mode: 0o644 });
  await daemon.start(arguments_);
});
afterEach(async () => {
  for (const client of clients.splice(0)) await client.close();
});
after(async () => {
  await daemon.remove();
  rmSync(folder, { recursive: true, force: true });
});

const append = (sequence: Sequence, position: number, tokenCount: number, layer = 0): Promise<unknown> =>
  sequence.append(layer, position, rows(position, tokenCount), rows(position, tokenCount, 5));

/** The text of a refusal without the id that it names. */
async function refusal(work: Promise<unknown>): Promise<string> {
  let text = 'no refusal';
  await work.catch(
    (error: DriveCommandError) => (text = `${error.code} ${error.message.replace(/\bsequence \d+/, 'sequence N')}`),
  );
  return text;
}

test('a sequence of another host is to no command any different from one that is not there', async () => {
  const [a, b] = [await connect('a'), await connect('b')];
  const own = await a.kv.create(shape, { label: 'secret plans' });
  await append(own, 0, 40);
  const { id } = own;
  const { append: appendRow, readBack, fork, truncate, reclaim, query } = kvOpcodes;
  const tokens = { cdw13: 0, cdw14: 16 };
  const probes = [
    { ...query, receiveBytes: 4096 },
    { ...query, receiveBytes: 4 },
    { ...appendRow, ...tokens, send: new Uint8Array(2 * 16 * ROW_BYTES) },
    { ...appendRow, ...tokens, send: new Uint8Array(16) },
    { ...readBack, ...tokens, cdw12: packBits(kvTransferBits, { part: 1 }), receiveBytes: 16 * ROW_BYTES },
    { ...readBack, ...tokens, cdw12: packBits(kvTransferBits, { part: 1 }), receiveBytes: 4 },
    { ...readBack, ...tokens, cdw12: packBits(kvTransferBits, { part: 1, layer: 99 }), receiveBytes: 4 },
    { ...fork, cdw12: 4, send: createDescriptor.encode({ version: DESCRIPTOR_VERSION }) },
    { ...truncate, cdw12: 0xffff, cdw13: 4 },
    { ...truncate, cdw12: 99, cdw13: 4_000_000 },
    { ...reclaim },
  ];
  for (const probe of probes) {
    const ask = (sequenceId: bigint): Promise<string> =>
      refusal(b.passThrough({ queue: 'io', namespaceId: KV_CACHE_NSID, ...probe, cdw10: Number(sequenceId) }));
    const missing = await ask(4_000_000n);
    assert.match(missing, /^unknownSequence/);
    assert.equal(await ask(id), missing, `${probe.name} ${JSON.stringify(probe)}`);
  }
  // A handle of another host knows id and shape: all that a request to attend is made of.
  const queries = new Float32Array(shape.kvHeadCount * shape.headDimK);
  for (const path of ['exchange', 'slot'] as const) {
    const attend = b.attend([{ sequence: own, layer: 0, queryHeadsPerKvHead: 1, queries }], { path });
    await assert.rejects(attend, { code: 'unknownSequence' });
  }
  const request = await b.prepareAttend([{ sequence: own, queryHeadsPerKvHead: 1, appendTokenCount: 1 }]);
  request.entries[0]!.layer = 0;
  request.entries[0]!.appendPosition = 40;
  await assert.rejects(request.post(), { code: 'unknownSequence' });
  assert.deepEqual((await own.info()).lengths, [40, 0]);
  assert.deepEqual((await own.readBack({ layer: 0 })).keys, rows(0, 40));
  await assert.rejects(b.kv.open(id), { code: 'unknownSequence' });
  assert.deepEqual(await b.kv.list(), []);
  assert.ok((await a.kv.list()).includes(id));
  const foreign = await (await connect('keeper')).kv.open(id);
  assert.equal((await foreign.info()).label, 'secret plans', 'a host that may name all of them');
  await own.reclaim();
});

test('ids that tell whether somebody has them can not be chosen', async () => {
  const [a, b] = [await connect('a'), await connect('b')];
  const own = await a.kv.create(shape);
  const taken = await refusal(b.kv.create(shape, { id: own.id }));
  const free = await refusal(b.kv.create(shape, { id: 9_999_999n }));
  assert.match(taken, /^invalidField/);
  assert.equal(taken, free);
  await own.reclaim();
});

test('a host that shares the namespace may not empty it', async () => {
  const [a, b] = [await connect('a'), await connect('b')];
  const own = await a.kv.create(shape);
  for (const namespaceId of [KV_CACHE_NSID, 0xffff_ffff]) {
    const format = b.passThrough({ queue: 'admin', opcode: adminOpcodes.formatNvm.opcode, namespaceId });
    await assert.rejects(format, { code: 'operationDenied' });
  }
  assert.equal((await own.info()).id, own.id);
  await own.reclaim();
});

test('quota of sequences: over all associations of the host, forks counted, and free again when reclaimed', async () => {
  const [one, two] = [await connect('small'), await connect('small')];
  const first = await one.kv.create(shape);
  await two.kv.create(shape);
  const third = await first.fork({});
  await assert.rejects(one.kv.create(shape), { code: 'hostQuota', retry: true });
  await assert.rejects(first.fork({}), { code: 'hostQuota' });
  const other = await (await connect('b')).kv.create(shape);
  await other.reclaim();
  await third.reclaim();
  await (await two.kv.create(shape)).reclaim();
  for (const id of await one.kv.list()) await (await one.kv.open(id)).reclaim();
});

test('quota of bytes: no more than it says, repeats succeed at the brim, and it stands after a restart', async () => {
  const client = await connect('small');
  const sequence = await client.kv.create(shape);
  let position = 0;
  const STEP = 16;
  for (;;) {
    const more = await refusal(append(sequence, position, STEP));
    if (more.startsWith('hostQuota')) break;
    assert.equal(more, 'no refusal');
    position += STEP;
    assert.ok(position < 100_000, 'the quota is never reached');
  }
  const { pageCount } = await sequence.info();
  assert.ok(pageCount * 4096 <= KV_BYTES && pageCount * 4096 > KV_BYTES / 2, `${pageCount} pages`);
  await append(sequence, position - STEP, STEP);
  await assert.rejects(sequence.fork({}), { code: 'hostQuota' });
  const { id } = sequence;
  const b = await connect('b');
  const other = await b.kv.create(shape);
  await append(other, 0, position + STEP);
  await client.flush();
  for (const open of clients.splice(0)) await open.close();
  assert.equal(await daemon.end('SIGTERM'), 0);
  await daemon.start(arguments_);
  const again = await connect('small');
  const recovered = await again.kv.open(id);
  await assert.rejects(append(recovered, position, STEP), { code: 'hostQuota' });
  await recovered.truncate(position / 2, { layer: 0 });
  await append(recovered, position / 2, STEP);
});
