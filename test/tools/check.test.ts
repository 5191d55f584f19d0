/** `attndrive check` as people run it. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { attndrive } from './command-line.ts';
import { DaemonProcess } from './daemon-process.ts';
import { startKnownDrive } from './known-drive.ts';

const daemon = new DaemonProcess();
after(() => daemon.remove());

before(() => startKnownDrive(daemon));

const check = (...args: string[]) => attndrive(['check', daemon.folder, ...args]);

interface CheckJson {
  readonly isSound: boolean;
  readonly isClean: boolean | null;
  readonly mappedLbaCount: number;
  readonly sequenceCount: number;
  readonly findingCount: number;
  readonly findings: readonly { readonly kind: string; readonly text: string }[];
  readonly lost: { readonly lbas: readonly unknown[]; readonly sequences: readonly unknown[] };
}

test('a drive that is served cannot be checked: exit status 2, and what to do', async () => {
  const { status, stdout, stderr } = check();
  assert.deepEqual([status, stdout], [2, '']);
  assert.match(stderr, /^attndrive: .*is served by process \d+; stop it first\n$/);
  await daemon.end('SIGKILL');
});

test('a drive that was killed: nothing is wrong, exit status 0', () => {
  const { status, stdout, stderr } = check();
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^drive {8}: .* \(AD[0-9A-F]{14}\), not shut down in order\n/);
  assert.match(stdout, /\nblocks {7}: 16 mapped\nsequences {4}: 1 on 16 pages\nnothing is wrong\n$/);
  const json = JSON.parse(check('--json').stdout) as CheckJson;
  assert.deepEqual([json.isSound, json.isClean, json.findings], [true, false, []]);
  assert.deepEqual([json.mappedLbaCount, json.sequenceCount], [16, 1]);
});

test('flipped bits: each is named, with what is lost, exit status 1', () => {
  const path = `${daemon.folder}/media/cells.bin`;
  const cells = readFileSync(path);
  const block = cells.indexOf(Buffer.alloc(4096, 0xb1));
  const page = cells.indexOf(Buffer.from(new Uint16Array(64).fill(0x3800).buffer), 65_536);
  const descriptor = openSync(path, 'r+');
  for (const position of [block + 99, block + 3 * 4096, page + 5]) {
    writeSync(descriptor, new Uint8Array([cells[position]! ^ 4]), 0, 1, position);
  }
  closeSync(descriptor);
  const { status, stdout } = check();
  assert.equal(status, 1);
  assert.match(
    stdout,
    /^data {14}physical page \d+ \(.*\), slot 0, LBA \d+: its bytes have the checksum \w+, must have \w+\n/m,
  );
  assert.match(stdout, /; group \d of [KV], head \d, layer \d, sequence 1\n/);
  assert.match(
    stdout,
    /\nlost {9}: 2 blocks: LBA \d+, \d+\n {13}: sequence 1, layer \d: tokens \d+ to \d+\n3 findings: 3 data\n$/,
  );
  const limited = JSON.parse(check('--json', '--limit', '1').stdout) as CheckJson;
  assert.deepEqual([limited.isSound, limited.findingCount, limited.findings.length], [false, 3, 1]);
  assert.equal(limited.lost.sequences.length, 1);
});

test('what is no drive cannot be checked', () => {
  const { status, stderr } = attndrive(['check', '/tmp']);
  assert.equal(status, 2);
  assert.match(stderr, /\/tmp is no drive/);
  assert.equal(attndrive(['check']).status, 2);
});
