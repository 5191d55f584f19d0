/** Drives in folders: damage of every file is found, and looking changes nothing. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { openFolder } from '../../daemon/ftl/ftl.ts';
import { checkImage, type CheckResult } from '../../daemon/image/check.ts';
import type { Finding, FindingKind } from '../../daemon/image/finding.ts';
import { DriveImage } from '../../daemon/image/image.ts';
import { openImage, threadedSummer } from '../../daemon/image/open-image.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { mediaFileHeader, mediaFileKinds } from '../../spec/media-format/drive-superblock.ts';
import { appendRows, createSequence, tokenRange } from '../kv/fixture.ts';
import { openWorkingDrive, work } from './working-drive.ts';

const parent = mkdtempSync(join(tmpdir(), 'attndrive-image-'));
const folder = join(parent, 'drive');
const arena = createArena(2 ** 21);
const kernels = loadKernels('wasm', { memory: arena.memory });
const random = createSeededRandom(31);
after(() => rmSync(parent, { recursive: true }));

/** A drive that was killed after a flush, with rows and blocks in the staging log too. */
before(async () => {
  const capacities = { blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 ** 21 };
  const layout = { pageSizeBytes: 8192, channelCount: 2, diesPerChannel: 1, overProvisioning: 0.1 };
  await formatDrive(folder, { ...capacities, ...layout, force: false }, random);
  const drive = await openWorkingDrive(openFolder(folder), random);
  await work(drive, random, 150);
  for (const id of drive.store.list(0n, 100)) await drive.store.reclaim(id);
  await drive.ftl.blocks.write(3, 7, random.bytes(7 * 4096), false);
  const id = createSequence(drive, { groupTokens: 8 });
  for (const layer of [0, 1]) await appendRows(drive, id, layer, 0, tokenRange(0, 61));
  await drive.ftl.durability.flush();
  await drive.end('killed');
});

async function check(threads: boolean): Promise<{ findings: Finding[]; result: CheckResult }> {
  const findings: Finding[] = [];
  const found: Finding[] = [];
  const image = openImage(folder, (finding) => found.push(finding));
  try {
    const summer = threads ? threadedSummer(image, 'wasm') : undefined;
    const options = { found, onFinding: (finding: Finding) => findings.push(finding), ...(summer && { summer }) };
    return { findings, result: await checkImage(image.stores, { arena, kernels }, options) };
  } finally {
    await image.close();
  }
}

const kindsOf = (findings: readonly Finding[]): FindingKind[] => [...new Set(findings.map(({ kind }) => kind))];
const textOf = (findings: readonly Finding[]): string =>
  findings.map(({ kind, text }) => `${kind}: ${text}`).join('\n');

function filesOf(path: string): string[] {
  return readdirSync(path, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? filesOf(join(path, entry.name)) : [join(path, entry.name)],
  );
}

/** Names, sizes, times and bytes of everything in the folder. */
function fingerprint(): string {
  const hash = createHash('sha256');
  for (const path of ['.', 'media', 'meta', 'staging']) hash.update(String(statSync(join(folder, path)).mtimeMs));
  for (const path of filesOf(folder).sort()) {
    const { size, mtimeMs, mode } = statSync(path);
    hash.update([path, size, mtimeMs, mode].join()).update(readFileSync(path));
  }
  return hash.digest('hex');
}

/** Changes bytes of a file while `look` runs. */
async function withBytes<T>(path: string, change: (bytes: Uint8Array) => void, look: () => Promise<T>): Promise<T> {
  const whole = readFileSync(path);
  const changed = Uint8Array.from(whole);
  change(changed);
  writeFileSync(path, changed);
  try {
    return await look();
  } finally {
    writeFileSync(path, whole);
  }
}

const flipAt = (position: number) => (bytes: Uint8Array) => {
  bytes[position]! ^= 1 << (position % 8);
};

test('a drive that was killed is sound, on one thread or on several, and a check changes nothing', async () => {
  const before = fingerprint();
  for (const threads of [false, true]) {
    const { findings, result } = await check(threads);
    assert.equal(textOf(findings), '');
    assert.ok(result.mappedLbaCount > 0 && result.sequenceCount === 1 && result.kvPageCount > 20);
    assert.equal(result.isClean, false);
  }
  assert.equal(fingerprint(), before);
});

test('a damaged superblock: nothing can be said', async () => {
  for (let i = 0; i < 24; i++) {
    const position = i < 12 ? random.nextUint32() % 128 : random.nextUint32() % 4096;
    await withBytes(join(folder, 'superblock'), flipAt(position), async () => {
      await assert.rejects(check(false), { code: 'mediaFormat', message: /superblock: / });
    });
  }
});

test('media files: any bit of a header, a length, a file that is missing', async () => {
  for (const kind of Object.keys(mediaFileKinds)) {
    const path = join(folder, 'media', `${kind}.bin`);
    for (let i = 0; i < 10; i++) {
      const position = random.nextUint32() % mediaFileHeader.sizeBytes;
      const { findings, result } = await withBytes(path, flipAt(position), () => check(false));
      assert.deepEqual(kindsOf(findings), ['file'], `byte ${position}`);
      assert.match(findings[0]!.text, new RegExp(`${kind}\\.bin: `));
      assert.deepEqual(result.lost.sequences, []);
    }
    const whole = readFileSync(path);
    truncateSync(path, 70_000);
    const cut = await check(true);
    assert.match(textOf(cut.findings), new RegExp(`file: .*${kind}\\.bin: 70000 bytes long; must be \\d+`));
    assert.ok(kindsOf(cut.findings).includes('unreadable'));
    writeFileSync(path, whole);
    renameSync(path, `${path}.away`);
    const missing = await check(true);
    assert.match(textOf(missing.findings), new RegExp(`file: .*${kind}\\.bin: cannot be opened \\(ENOENT\\)`));
    if (kind !== 'blocks') assert.ok(missing.result.lost.lbaCount > 0 && missing.result.lost.sequences.length === 1);
    renameSync(`${path}.away`, path);
  }
  assert.equal(textOf((await check(true)).findings), '', 'all is back');
});

test('a bit of the metadata file that changes anything is found', async () => {
  const path = join(folder, 'meta', 'data.mdb');
  const records = (): unknown => {
    const { meta } = openImage(folder, () => undefined).stores;
    return Object.values(metaNamespaces).map((namespace) => [...meta.range(namespace)]);
  };
  const whole = records();
  const { size } = statSync(path);
  let foundCount = 0;
  for (let i = 0; i < 120; i++) {
    await withBytes(path, flipAt(random.nextUint32() % size), async () => {
      const { findings } = await check(false);
      if (findings.length === 0) assert.deepEqual(records(), whole, 'a page that is not in use');
      else {
        foundCount++;
        assert.ok(kindsOf(findings).includes('file'), textOf(findings));
      }
    });
  }
  assert.ok(foundCount > 4, `${foundCount} of 120 flips hit something in use`);
  renameSync(path, `${path}.away`);
  const { findings } = await check(false);
  assert.match(textOf(findings), /file: .*data\.mdb is missing/);
  assert.match(textOf(findings), /nothing is there, but pages were programmed/);
  renameSync(`${path}.away`, path);
});

test('a bit of the staging log that changes a record is found; a missing segment is', async () => {
  const [name] = readdirSync(join(folder, 'staging'));
  const path = join(folder, 'staging', name!);
  const records = async (): Promise<unknown[]> => {
    const image = openImage(folder, () => undefined);
    const loaded = await DriveImage.load(image.stores, { arena, kernels });
    const found: unknown[] = [];
    loaded.readStagingLog((record) => found.push(record));
    loaded.close();
    await image.close();
    return found;
  };
  const whole = await records();
  const { size } = statSync(path);
  for (let i = 0; i < 60; i++) {
    const position = i < 30 ? random.nextUint32() % 200 : random.nextUint32() % size;
    await withBytes(path, flipAt(position), async () => {
      const { findings } = await check(false);
      if (findings.length === 0) assert.deepEqual(await records(), whole, `byte ${position} is padding`);
      else assert.ok(kindsOf(findings).includes('stagingLog'), textOf(findings));
    });
  }
  renameSync(path, `${path}.away`);
  assert.match(textOf((await check(false)).findings), /stagingLog: .*staging segment \d+ is missing/);
  renameSync(`${path}.away`, path);
  renameSync(join(folder, 'staging'), join(folder, 'staging.away'));
  assert.match(textOf((await check(false)).findings), /file: .*staging: ENOENT/);
  renameSync(join(folder, 'staging.away'), join(folder, 'staging'));
});

test('a folder that is served, or holds no drive, is refused', async () => {
  const drive = await openWorkingDrive(openFolder(folder), random);
  await assert.rejects(check(false), { code: 'folderInUse', message: /is served by process \d+; stop it first/ });
  await drive.end('clean');
  assert.equal(textOf((await check(true)).findings), '', 'after a clean shutdown');
  assert.throws(() => openImage(parent, () => undefined), { code: 'mediaFormat', message: /is no drive/ });
});
