import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { type FormatOptions, formatDrive } from '../../daemon/ftl/format.ts';
import { openFolder } from '../../daemon/ftl/ftl.ts';
import { cellOffset } from '../../daemon/nand/geometry.ts';
import { LBA_BYTES, lbaContent, lbaVersion, openDrive, type OpenDrive } from './open-drive.ts';

const random = createSeededRandom(11);
const folders: string[] = [];
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

function temporaryFolder(): string {
  const folder = mkdtempSync(`${tmpdir()}/attndrive-ftl-`);
  folders.push(folder);
  return folder;
}

const options: FormatOptions = {
  blockCapacityBytes: 3 * 2 ** 20,
  kvCapacityBytes: 2 ** 20,
  pageSizeBytes: 16_384,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.07,
  force: false,
};

async function makeDrive(): Promise<string> {
  const folder = `${temporaryFolder()}/drive`;
  await formatDrive(folder, options, random);
  return folder;
}

const open = (folder: string): Promise<OpenDrive> => openDrive(openFolder(folder), random);

test('what was written is there after a clean stop, and after none', async () => {
  const folder = await makeDrive();
  const first = await open(folder);
  for (let lba = 0; lba < 99; lba++) await first.ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
  for (let key = 0; key < 20; key++) await first.keeper.put(key, 1);
  await first.ftl.close();
  assert.deepEqual(readdirSync(folder).sort(), ['media', 'meta', 'staging', 'superblock']);
  for (const _ of [1, 2]) {
    const { ftl, keeper } = await open(folder);
    for (let lba = 0; lba < 99; lba++) assert.equal(await lbaVersion(ftl, lba), 1);
    for (let key = 0; key < 20; key++) assert.equal(await keeper.check(key), 1);
    await ftl.abandon();
  }
});

test('the block namespace written over four times at random, with garbage collection, keeps every byte', async () => {
  const folder = await makeDrive();
  const { ftl } = await open(folder);
  const versions = new Uint32Array(ftl.blocks.lbaCount);
  for (let written = 0; written < 4 * ftl.blocks.lbaCount; written++) {
    const lba = random.nextUint32() % ftl.blocks.lbaCount;
    await ftl.blocks.write(lba, 1, lbaContent(lba, ++versions[lba]!), false);
  }
  // As one read, over pages of many superblocks.
  const all = new Uint8Array(ftl.blocks.lbaCount * LBA_BYTES);
  await ftl.blocks.read(0, ftl.blocks.lbaCount, all);
  for (const [lba, version] of versions.entries()) {
    const found = all.subarray(lba * LBA_BYTES, (lba + 1) * LBA_BYTES);
    assert.equal(Buffer.compare(found, lbaContent(lba, version)), 0, `LBA ${lba}`);
  }
  await ftl.close();
});

test('format refuses a folder with a drive or something else in it, and makes a new drive if it must', async () => {
  const folder = temporaryFolder();
  writeFileSync(`${folder}/letters.txt`, 'mine');
  await assert.rejects(formatDrive(folder, options, random), { code: 'invalidField', message: /holds letters\.txt/ });
  unlinkSync(`${folder}/letters.txt`);
  const first = await formatDrive(folder, options, random);
  await assert.rejects(formatDrive(folder, options, random), {
    code: 'invalidField',
    message: /holds a drive; --force/,
  });
  const second = await formatDrive(folder, { ...options, force: true }, random);
  assert.notEqual(first.uuid, second.uuid);
  assert.equal(second.serial.length, 16);
  const file = `${temporaryFolder()}/file`;
  writeFileSync(file, '');
  await assert.rejects(formatDrive(`${file}/drive`, options, random), { code: 'invalidField', message: /ENOTDIR/ });
});

test('what a format that was cut short leaves is no drive, says so, and may be formatted again', async () => {
  const folder = await makeDrive();
  renameSync(`${folder}/superblock`, `${folder}/superblock.new`);
  await assert.rejects(async () => open(folder), { code: 'mediaFormat', message: /a format of it was cut short, run/ });
  await formatDrive(folder, options, random);
  assert.deepEqual(readdirSync(folder).sort(), ['media', 'meta', 'staging', 'superblock']);
});

test('a drive whose superblock is lost is not wiped unless asked', async () => {
  const folder = await makeDrive();
  unlinkSync(`${folder}/superblock`);
  await assert.rejects(formatDrive(folder, options, random), {
    code: 'invalidField',
    message: /holds a drive's media without its superblock; --force/,
  });
  await formatDrive(folder, { ...options, force: true }, random);
});

test('a drive of an older format, whose metadata has no checksums and begins with its first start', async () => {
  const folder = await makeDrive();
  const bytes = readFileSync(`${folder}/superblock`);
  bytes.writeUInt16LE(2, 8);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, 4092)), 4092);
  writeFileSync(`${folder}/superblock`, bytes);
  rmSync(`${folder}/meta`, { recursive: true });
  mkdirSync(`${folder}/meta`);
  for (let version = 1; version <= 3; version++) {
    const { ftl } = await open(folder);
    assert.equal(ftl.identity.formatVersion, 2);
    assert.equal(await lbaVersion(ftl, 7), version - 1);
    await ftl.blocks.write(7, 1, lbaContent(7, version), false);
    await ftl.close();
  }
});

test("a folder is one process's at a time; a lock that a killed process left is taken over", async () => {
  const folder = await makeDrive();
  const { ftl } = await open(folder);
  const inUse = { code: 'folderInUse', message: new RegExp(`is served by process ${process.pid}; stop it first`) };
  assert.throws(() => openFolder(folder), inUse);
  await assert.rejects(formatDrive(folder, { ...options, force: true }, random), inUse);
  await ftl.close();
  assert.ok(!existsSync(`${folder}/lock`));
  // A process that is gone; this process's id, of a process that began at another time; nothing.
  for (const stale of ['4194304 77\n', `${process.pid} 1\n`, '']) {
    writeFileSync(`${folder}/lock`, stale);
    const { ftl: again } = await open(folder);
    await again.close();
  }
});

test('a drive that is not right is named, with what must be, and is left unlocked', async () => {
  const edit = (path: string, position: number, value: number): void => {
    const bytes = readFileSync(path);
    bytes[position] = value;
    writeFileSync(path, bytes);
  };
  for (const [spoil, message] of [
    [(folder) => unlinkSync(`${folder}/superblock`), /is no drive: .*no such file; make one with "attndrive format"/],
    [(folder) => truncateSync(`${folder}/superblock`, 100), /superblock: 100 bytes long; must be 4096/],
    [(folder) => edit(`${folder}/superblock`, 0, 0), /superblock: does not begin with ATTNDRIV/],
    [(folder) => edit(`${folder}/superblock`, 8, 7), /superblock: format version 7; this program reads 1/],
    [(folder) => edit(`${folder}/superblock`, 57, 1), /superblock: checksum is wrong/],
    [
      (folder) => rmSync(`${folder}/media`, { recursive: true }),
      /media\/cells\.bin: is missing; it is part of the drive/,
    ],
    [(folder) => truncateSync(`${folder}/media/cells.bin`, 70_000), /cells\.bin: 70000 bytes long; must be \d+/],
    [(folder) => writeFileSync(`${folder}/meta/data.mdb`, 'not LMDB'), /data\.mdb is no LMDB file/],
    [(folder) => rmSync(`${folder}/staging`, { recursive: true }), /staging: ENOENT/],
    [(folder) => rmSync(`${folder}/meta`, { recursive: true }), /meta\/data\.mdb is missing; it is part of the drive/],
  ] as readonly [(folder: string) => void, RegExp][]) {
    const folder = await makeDrive();
    const { ftl } = await open(folder);
    for (let lba = 0; lba < 9; lba++) await ftl.blocks.write(lba, 1, lbaContent(lba, 1), false);
    await ftl.close();
    spoil(folder);
    await assert.rejects(async () => open(folder), { name: 'DriveError', code: 'mediaFormat', message });
    assert.ok(!existsSync(`${folder}/lock`), `${message}: unlocked`);
  }
});

test('media files of another drive are refused', async () => {
  const folder = await makeDrive();
  const other = await makeDrive();
  rmSync(`${folder}/media`, { recursive: true });
  mkdirSync(`${folder}/media`);
  for (const name of readdirSync(`${other}/media`)) {
    writeFileSync(`${folder}/media/${name}`, readFileSync(`${other}/media/${name}`));
  }
  await assert.rejects(async () => open(folder), { code: 'mediaFormat', message: /cells\.bin: belongs to drive/ });
});

test('metadata of another drive is refused', async () => {
  const folder = await makeDrive();
  const other = await makeDrive();
  writeFileSync(`${folder}/meta/data.mdb`, readFileSync(`${other}/meta/data.mdb`));
  await assert.rejects(async () => open(folder), {
    code: 'mediaFormat',
    message: /meta belongs to drive [0-9a-f]{32}, not/,
  });
  assert.ok(!existsSync(`${folder}/lock`));
});

test('a bit that flips in a page is an error that names the page', async () => {
  const folder = await makeDrive();
  const first = await open(folder);
  await first.keeper.put(5, 1);
  const [holding] = first.keeper.holdings.values();
  const ppn = first.ftl.kv.map.get(holding!.lpn!);
  const { geometry } = first.ftl;
  await first.ftl.close();
  const descriptor = openSync(`${folder}/media/cells.bin`, 'r+');
  const byte = new Uint8Array(1);
  readSync(descriptor, byte, 0, 1, cellOffset(geometry, ppn) + 777);
  writeSync(descriptor, new Uint8Array([byte[0]! ^ 0x20]), 0, 1, cellOffset(geometry, ppn) + 777);
  closeSync(descriptor);
  const { ftl, keeper } = await open(folder);
  const wrong = {
    code: 'unrecoveredRead',
    result: ppn,
    message: new RegExp(`physical page ${ppn} .*superblock.*channel`),
  };
  await assert.rejects(keeper.check(5), wrong);
  await assert.rejects(keeper.check(5), wrong);
  await keeper.put(5, 2);
  assert.equal(await keeper.check(5), 2, 'the drive goes on');
  await ftl.close();
});

test('a killed process loses nothing that it said was durable', async () => {
  const folder = await makeDrive();
  const durable = new Uint32Array(512);
  const issued = new Uint32Array(512);
  const script = fileURLToPath(new URL('./block-writer.js', import.meta.url));
  let version = 1;
  for (const lineCount of [150, 300, 90]) {
    const writer = spawn(process.execPath, [script, folder, String(version)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const exit = once(writer, 'exit');
    let seen = 0;
    for await (const line of createInterface({ input: writer.stdout })) {
      const [lba, written, state] = line.split(' ');
      issued[Number(lba)] = Number(written);
      version = Number(written) + 1;
      if (state === 'fua') durable[Number(lba)] = Number(written);
      if (state === 'flushed') durable.set(issued);
      if (++seen === lineCount) writer.kill('SIGKILL');
    }
    assert.equal((await exit)[1], 'SIGKILL');
    // The last write may not have been told of.
    version += 2;
    const { ftl } = await open(folder);
    for (let lba = 0; lba < 512; lba++) {
      const found = await lbaVersion(ftl, lba);
      assert.ok(found >= durable[lba]!, `LBA ${lba}: version ${found}, durable ${durable[lba]}`);
      durable[lba] = found;
      issued[lba] = found;
    }
    await ftl.abandon();
  }
});
