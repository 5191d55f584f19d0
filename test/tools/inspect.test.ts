/** `attndrive inspect` as people run it. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { attndrive } from './command-line.ts';
import { DaemonProcess } from './daemon-process.ts';
import { startKnownDrive } from './known-drive.ts';

const daemon = new DaemonProcess();
after(() => daemon.remove());

before(() => startKnownDrive(daemon));

const inspect = (...args: string[]) => attndrive(['inspect', daemon.folder, ...args]);
const text = (...args: string[]): string => {
  const { status, stdout, stderr } = inspect(...args);
  assert.deepEqual([status, stderr], [0, '']);
  return stdout;
};
const json = (...args: string[]): Record<string, unknown> =>
  JSON.parse(text(...args, '--json')) as Record<string, unknown>;

test('a drive that is served is not looked into', async () => {
  const { status, stdout, stderr } = inspect();
  assert.deepEqual([status, stdout], [1, '']);
  assert.match(stderr, /is served by process \d+; stop it first\n$/);
  await daemon.end('SIGKILL');
});

test('the drive as a whole', () => {
  const shown = text();
  assert.match(shown, /^drive +: .* \(AD[0-9A-F]{14}\)\n/);
  assert.match(shown, /^format +: version \d+, profile ideal$/m);
  assert.match(shown, /^checkpoint +: operation [\d,]+, not shut down in order; 1 starts, 0 of them after a crash$/m);
  assert.match(shown, /^block map +: \d+ of [\d,]+ LBAs in pages, \d+ in the staging log$/m);
  assert.match(shown, /^sequences +: 1 on 16 pages; 80 tokens in all layers$/m);
  const { kv, checkpoint } = json();
  assert.deepEqual(kv, { sequenceCount: 1, tokenCount: 80, heldPageCount: 16 });
  assert.equal((checkpoint as { isClean: boolean }).isClean, false);
});

test('an LBA, its page, and its bytes', () => {
  const shown = text('--lba', '3', '--data');
  assert.match(shown, /^LBA 3 is in slot \d+\npage +: physical page \d+ \(superblock /);
  assert.match(shown, /^slot 0 +: LBA 3; in use$/m);
  assert.match(shown, /^checksum +: [0-9A-F]{8}h right$/m);
  assert.match(shown, /^00000000: (b1b1 ){8} \.{16}\n\*\n$/m);
  const { page } = json('--lba', '3') as { page: { page: number; cells?: string } };
  assert.equal(page.cells, undefined);
  const { cells } = json('--page', String(page.page), '--data');
  assert.equal(cells, 'b1'.repeat(4096));
  assert.equal(text('--lba', '4000'), 'LBA 4000 is nowhere: it reads as zeros\n');
});

test('a sequence, and where its pages lie', () => {
  const shown = text('--sequence', '1');
  assert.match(shown, /^sequence : 1 "kept"$/m);
  assert.match(shown, /^shape +: 2 layers, 2 KV heads, K 64 x f16, V 64 x f16, 16 tokens a group$/m);
  assert.match(shown, /^ +1 +40 +2 +8 +8 /m);
  const table = text('--sequence', '1', '--layer', '1').trimEnd().split('\n');
  assert.match(table[0]!, /^group {2}head {2}part {2}logical page {2}page {2}superblock {2}channel$/);
  assert.equal(table.length, 2 + 8);
});

test('maps and the staging log', () => {
  const { runs, mappedCount } = json('--map', 'kv') as { runs: { count: number }[]; mappedCount: number };
  assert.equal(mappedCount, 16);
  assert.equal(
    runs.reduce((sum, { count }) => sum + count, 0),
    16,
  );
  assert.match(text('--map', 'block'), /^\d+ of [\d,]+ are mapped\n$/m);
  assert.match(text('--staging'), /^segment \d+: .*\n/);
  assert.match(text('--staging'), / kv .*sequence 1, layer 0: 8 tokens from 32 on$/m);
});

test('what does not go together or is not there is refused', () => {
  for (const [args, message, expected] of [
    [['--page', '1', '--lba', '1'], /cannot be used with option/, 2],
    [['--data'], /--data goes with --page or --lba/, 2],
    [['--layer', '1'], /--layer goes with --sequence/, 2],
    [['--map', 'both'], /Allowed choices are block, kv/, 2],
    [['--page', '-1'], /from 0 to/, 2],
    [['--page', '4294967294'], /page 4294967294; allowed: 0 to \d+/, 1],
    [['--sequence', '9'], /sequence 9; the drive has 1/, 1],
    [['--sequence', '1', '--layer', '2'], /layer 2; allowed: 0 to 1/, 1],
  ] as const) {
    const { status, stderr } = inspect(...args);
    assert.match(stderr, message);
    assert.equal(status, expected, stderr);
  }
});
