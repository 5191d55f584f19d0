/** Faults by the control plane and the command line, on a running drive: what its clients see. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { AdminClient, type DriveClient, type DriveCommandError } from '../../client/index.ts';
import { parseExposition } from '../admin/exposition.ts';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { connectTo, runningDrive, Witness } from './served-drive.ts';

const daemon = new DaemonProcess();
let client: DriveClient;
let admin: AdminClient;
let witness: Witness;

before(async () => {
  await daemon.start(['--allow-faults']);
  client = await connectTo(daemon);
  admin = new AdminClient(`unix:${runningDrive(daemon).adminSocket}`);
  witness = await Witness.write(client);
  await witness.check();
});
after(() => daemon.remove());

const fault = (...args: string[]) => attndrive(['fault', ...args, '--drive', daemon.folder]);
const metric = async (name: string): Promise<number> =>
  parseExposition(await admin.metrics())
    .filter((family) => family.name === name)
    .flatMap(({ samples }) => samples)
    .reduce((sum, { value }) => sum + value, 0);

const unrecovered = (page: number) => (error: DriveCommandError) => {
  assert.equal(error.code, 'unrecoveredRead');
  assert.equal(error.dw1 * 2 ** 32 + error.dw0, page);
  return true;
};

test('a lost bit in a block: its reads fail, others do not; removing the fault brings it back', async () => {
  const added = fault('add', '--kind', 'bit-errors', '--lba', '5', '--json');
  assert.equal(added.status, 0, added.stderr);
  const { id, pages } = JSON.parse(added.stdout) as { id: string; pages: { page: number }[] };
  await assert.rejects(client.block.read(5, 1), unrecovered(pages[0]!.page));
  assert.equal((await client.block.read(6, 60)).length, 60 * 4096);
  await daemon.says(/fails its checksum \(1 raw bit error in a codeword, of which 0 can be corrected\); it held LBA 5/);
  const listed = fault('list');
  assert.match(
    listed.stdout,
    new RegExp(`\\n +${id}  bit-errors \\(1\\)  lba 5  0 of 1  ${pages[0]!.page} uncorrectable\\n`),
  );
  assert.equal(fault('remove', id).stdout, `removed fault ${id}\n`);
  assert.equal(fault('list').stdout, 'no faults\n');
  await witness.check();
});

test('a lost bit in a group: ATTN and read back fail with the page, and the log names the owner', async () => {
  const where = { sequence: String(witness.sequence.id), layer: 1, head: 1, part: 'V', group: 1 } as const;
  const before = await metric('attndrive_media_errors_total');
  const { id, pages } = await admin.addFault({ kind: 'bit-errors', where });
  const { page } = pages[0]!;
  const queries = new Float32Array(2 * 16).fill(0.25);
  const entry = { sequence: witness.sequence, layer: 1, queryHeadsPerKvHead: 1, queries };
  await assert.rejects(client.attend([entry]), unrecovered(page));
  await assert.rejects(witness.sequence.readBack({ layer: 1 }), unrecovered(page));
  await client.attend([{ ...entry, layer: 0 }]);
  await daemon.says(/it held group 1 of V, head 1, layer 1, sequence \d+/);
  assert.equal(await metric('attndrive_media_errors_total'), before + 2);
  const smart = JSON.parse(attndrive(['smart-log', '--drive', daemon.folder, '--json']).stdout) as {
    media_errors: number;
  };
  assert.ok(smart.media_errors >= 2);
  await admin.removeFault(id);
  await witness.check();
  await client.attend([entry]);
});

test('a die that fails programs and reads: the drive goes on', async () => {
  assert.equal(fault('add', '--kind', 'program-failure', '--next', '--count', '3').status, 0);
  await witness.sequence.append(0, Witness.tokenCount, new Float32Array(64 * 32), new Float32Array(64 * 32));
  assert.equal((await admin.faults())[0]?.remainingCount, 0);
  const silent = await admin.addFault({ kind: 'read-failure', where: { lba: 7 }, count: 1 });
  await assert.rejects(client.block.read(7, 1), { code: 'unrecoveredRead' });
  await client.block.read(7, 1);
  for (const { id } of [...(await admin.faults())]) await admin.removeFault(id);
  assert.deepEqual(await admin.faults(), [], `fault ${silent.id} too`);
});

test('what makes no sense is refused with what is allowed', async () => {
  for (const [args, message] of [
    [
      ['--kind', 'bit-errors', '--lba', '5', '--page', '3'],
      /where has lba, page; allowed: page; superblock, unit or both; lba;/,
    ],
    [['--kind', 'erase-failure', '--page', '3'], /an erase of a page; allowed: superblock, unit/],
    [['--kind', 'read-failure', '--next', '--bits', '3'], /bits of a read-failure; allowed: bits for bit-errors only/],
    [['--kind', 'bit-errors', '--lba', '4000'], /LBA 4000 is in no flash page; allowed: LBAs that were written/],
    [
      ['--kind', 'bit-errors', '--sequence', '77', '--layer', '0', '--head', '0', '--part', 'K', '--group', '0'],
      /unknown sequence/,
    ],
    [
      ['--kind', 'bit-errors', '--sequence', '1', '--layer', '0', '--head', '0', '--part', 'K', '--group', '900'],
      /group 900; allowed: groups that are in flash/,
    ],
    [['--kind', 'bit-errors'], /say where, or --next/],
    [['--kind', 'fire', '--next'], /Allowed choices are bit-errors, read-failure/],
  ] as const) {
    const { status, stderr } = fault('add', ...args);
    assert.ok(status === 1 || status === 2);
    assert.match(stderr, message);
  }
  assert.match(fault('remove', '99').stderr, /unknown fault: fault 99/);
});

test('without --allow-faults nothing can be injected', async () => {
  await client.close();
  await admin.close();
  await daemon.end('SIGTERM');
  await daemon.start();
  const { status, stderr } = fault('add', '--kind', 'bit-errors', '--lba', '5');
  assert.equal(status, 1);
  assert.match(stderr, /fault injection is off: start the daemon with --allow-faults/);
  assert.equal(fault('list').stdout, 'no faults\n');
});
