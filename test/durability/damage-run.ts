// Flips bits of a drive's files, or cuts the files short, one damage at a time, and opens the drive. Arguments: an empty
// folder, a seed, a count, and whether the drive was stopped or killed before. It prints each damage before it opens, and
// what came of it: if it ends by a signal, the last line says where.
import assert from 'node:assert/strict';
import {
  closeSync,
  copyFileSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { openFolder } from '../../daemon/ftl/ftl.ts';
import { lbaContent, LBA_BYTES } from '../ftl/open-drive.ts';
import { readRows, rowsOf } from '../kv/fixture.ts';
import { DiskState, keepAll } from './disk-state.ts';
import type { DrivePromises } from './drive-promises.ts';
import { RecordedDisk } from './recorded-disk.ts';
import { RecordedRun } from './recorded-run.ts';
import { openWholeFtl, type WholeFtl } from './whole-ftl.ts';
import { emptyFolder } from './temporary.ts';

const RUN_STEPS = 90;
const [, , parent = '', seed = '1', count = '1', how = 'stopped'] = process.argv;
const random = createSeededRandom(Number(seed));
const below = (end: number): number => random.nextUint32() % end;

const root = emptyFolder(parent, 'run');
const run = new RecordedRun(root, Number(seed));
await run.make();
const promises = how === 'stopped' ? await run.work(RUN_STEPS) : await run.workAndKill(RUN_STEPS);
const whole = new DiskState();
for (const event of new RecordedDisk(root).events) whole.apply(event);

interface Target {
  readonly name: string;
  readonly sizeBytes: number;
  /** Lines of `LINE_BYTES` that are not all zeros: most of a sparse file says nothing. */
  readonly lines: readonly number[];
}

const LINE_BYTES = 64;

function targetsOf(folder: string): Target[] {
  const names = readdirSync(folder, { recursive: true }).map(String).sort();
  const files = names.filter((name) => statSync(`${folder}/${name}`).isFile() && !name.startsWith('lock'));
  return files.map((name) => {
    const bytes = readFileSync(`${folder}/${name}`);
    const lines: number[] = [];
    for (let at = 0; at < bytes.length; at += LINE_BYTES) {
      if (bytes.subarray(at, at + LINE_BYTES).some((byte) => byte !== 0)) lines.push(at);
    }
    return { name, sizeBytes: bytes.length, lines };
  });
}

function flip(folder: string, { name, lines }: Target): string {
  const at = lines[below(lines.length)]! + below(LINE_BYTES);
  const bit = 1 << below(8);
  const descriptor = openSync(`${folder}/${name}`, 'r+');
  try {
    const byte = new Uint8Array(1);
    readSync(descriptor, byte, 0, 1, at);
    writeSync(descriptor, new Uint8Array([byte[0]! ^ bit]), 0, 1, at);
    return `byte ${at} bit ${bit}`;
  } finally {
    closeSync(descriptor);
  }
}

function damage(folder: string, targets: readonly Target[]): string {
  const target = targets[below(targets.length)]!;
  if (below(12) > 0) return `${target.name} ${flip(folder, target)}`;
  const cut = below(target.sizeBytes);
  truncateSync(`${folder}/${target.name}`, cut);
  return `${target.name} cut to ${cut}`;
}

/** Every block and token is right, or named as unreadable; returns how many are. */
async function checkContent({ ftl, ...drive }: WholeFtl, { blocks, sequences }: DrivePromises): Promise<number> {
  let unreadable = 0;
  const isRead = async (read: () => Promise<unknown>): Promise<boolean> => {
    try {
      await read();
      return true;
    } catch (error) {
      assert.ok(error instanceof DriveError && error.code === 'unrecoveredRead', String(error));
      unreadable++;
      return false;
    }
  };
  for (const [lba, { durable, issued, zeros }] of blocks.entries()) {
    const bytes = new Uint8Array(LBA_BYTES);
    if (!(await isRead(() => ftl.blocks.read(lba, 1, bytes)))) continue;
    const versions = Array.from({ length: issued - durable + 1 }, (_, i) => durable + i);
    const allowed = versions.map((version) => lbaContent(lba, zeros.has(version) ? 0 : version));
    assert.ok(
      allowed.some((content) => Buffer.compare(bytes, content) === 0),
      `LBA ${lba} holds something else`,
    );
  }
  for (const { id, shape, layers } of sequences.live) {
    const isThere = drive.store.list(id - 1n, 1)[0] === id;
    if (!isThere && how === 'killed') continue;
    assert.ok(isThere, `sequence ${id} is gone`);
    for (const [layer, generations] of layers.entries()) {
      const length = drive.store.summary(id).lengths[layer]!;
      const { tokens, durableLength } = generations.at(-1)!;
      if (how === 'stopped') assert.equal(length, durableLength, `layer ${layer} of ${id}`);
      if (length === 0) continue;
      let rows: Uint8Array = new Uint8Array();
      if (!(await isRead(async () => (rows = await readRows({ ftl, ...drive } as WholeFtl, id, layer, 0, length)))))
        continue;
      const expected = rowsOf(shape, layer, tokens.slice(0, length));
      if (how === 'stopped')
        assert.equal(Buffer.compare(rows, expected), 0, `layer ${layer} of ${id} has other tokens`);
    }
  }
  return unreadable;
}

const counts: Record<string, number> = {};
const targets = targetsOf(`${root}/drive`);
for (let i = 0; i < Number(count); i++) {
  const image = `${parent}/image`;
  whole.build(image, keepAll, random);
  const folder = `${image}/drive`;
  // Of no use after a crash, but LMDB finds it.
  copyFileSync(`${root}/drive/meta/lock.mdb`, `${folder}/meta/lock.mdb`);
  const what = damage(folder, targets);
  process.stdout.write(`${what}: `);
  let outcome: string;
  try {
    const drive = await openWholeFtl(openFolder(folder), random);
    const unreadable = await checkContent(drive, promises);
    await drive.abandon();
    outcome = unreadable > 0 ? `${unreadable} unreadable` : 'all right';
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    assert.ok(['mediaFormat', 'folderAccess'].includes(error.code), `${error.code} ${error.message}`);
    outcome = `refused: ${error.message}`;
  }
  process.stdout.write(`${outcome}\n`);
  const kind = `${what.split(' ')[0]!.replace(/\d{8}/, 'N')}: ${outcome.split(':')[0]!.replace(/\d+ /, '')}`;
  counts[kind] = (counts[kind] ?? 0) + 1;
}
console.log(JSON.stringify(counts, undefined, 1));
