// A drive on a small file system that fills up. Arguments: an empty folder, and which part of the drive gets a file
// system of its own ("." for all of it), how cells are read and written. To be run with mounts of its own.
import assert from 'node:assert/strict';
import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { systemFileSystem } from '../../daemon/base/file-system.ts';
import { openFolder } from '../../daemon/ftl/ftl.ts';
import { lbaContent, lbaVersion } from '../ftl/open-drive.ts';
import { appendRows, assertTokens, createSequence, tokenRange } from '../kv/fixture.ts';
import { run } from './own-mounts.ts';
import { cellsIos, smallDrive } from './recorded-run.ts';
import { openWholeFtl, type WholeFtl } from './whole-ftl.ts';

const SIZES: Record<string, string> = { '.': '6m', media: '4m', staging: '200k', meta: '300k' };
const LBA_COUNT = smallDrive.blockCapacityBytes / 4096;

const [, , parent = '', part = '.', ioName = 'mapped'] = process.argv;
const { io } = cellsIos.find(({ name }) => name === ioName)!;
const random = createSeededRandom(1);
const folder = `${parent}/drive`;
const place = part === '.' ? folder : `${folder}/${part}`;
const ballast = `${place}/lock.ballast`;

if (part === '.') {
  mkdirSync(folder);
  run('mount', '-t', 'tmpfs', '-o', `size=${SIZES[part]}`, 'none', folder);
}
await formatDrive(folder, smallDrive, random);
if (part !== '.') {
  run('cp', '-a', place, `${parent}/aside`);
  run('mount', '-t', 'tmpfs', '-o', `size=${SIZES[part]}`, 'none', place);
  run('cp', '-a', '--sparse=always', `${parent}/aside/.`, place);
}

const versions = new Uint32Array(LBA_COUNT);
const failures = new Map<string, number>();

function fill(): void {
  const descriptor = openSync(ballast, 'a');
  const block = Buffer.alloc(4096, 1);
  try {
    for (;;) writeSync(descriptor, block);
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
  } finally {
    closeSync(descriptor);
  }
  assert.equal(statfsSync(place).bfree, 0);
}

/** True if it was done; a full disk is told by name. */
async function attempt(action: () => Promise<unknown>): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    assert.ok(error instanceof DriveError, String(error));
    assert.equal(error.code, 'writeFault', error.message);
    assert.match(error.message, /the disk is full/);
    const message = error.message.replace(/byte \d+/, 'byte N');
    failures.set(message, (failures.get(message) ?? 0) + 1);
    return false;
  }
}

async function write(drive: WholeFtl, lba: number): Promise<boolean> {
  const version = versions[lba]! + 1;
  const isDone = await attempt(() => drive.ftl.blocks.write(lba, 1, lbaContent(lba, version), false));
  // A write that failed may have been done.
  if (isDone || (await lbaVersion(drive.ftl, lba)) === version) versions[lba] = version;
  return isDone;
}

async function checkAll(drive: WholeFtl, id: bigint, tokenCount: number): Promise<void> {
  for (let lba = 0; lba < LBA_COUNT; lba++) assert.equal(await lbaVersion(drive.ftl, lba), versions[lba], `LBA ${lba}`);
  await assertTokens(drive, id, 0, tokenRange(0, tokenCount));
}

const drive = await openWholeFtl(openFolder(folder, systemFileSystem, io), random);
for (let lba = 0; lba < LBA_COUNT / 2; lba++) assert.ok(await write(drive, lba));
const id = createSequence(drive, { layerCount: 1, groupTokens: 4 });
await appendRows(drive, id, 0, 0, tokenRange(0, 30));
await drive.ftl.durability.flush();

let failureCount = 0;
for (let round = 0; round < 6; round++) {
  // A checkpoint may have made room.
  fill();
  for (let lba = 0; lba < LBA_COUNT; lba++) if (!(await write(drive, lba))) failureCount++;
  if (!(await attempt(() => drive.ftl.durability.flush()))) failureCount++;
  if (!(await attempt(() => drive.ftl.durability.syncStaging()))) failureCount++;
  // Records enough to fill the last page that the log has.
  for (let i = 0; i < 120; i++) {
    if (!(await attempt(() => drive.ftl.blocks.deallocate(LBA_COUNT - 1, 1)))) failureCount++;
    else versions[LBA_COUNT - 1] = 0;
  }
  await checkAll(drive, id, 30);
}
assert.ok(failureCount > 0, 'the disk was full');

// Room again: the same commands succeed, without a restart.
rmSync(ballast);
for (let lba = 0; lba < LBA_COUNT; lba++) assert.ok(await write(drive, lba));
await appendRows(drive, id, 0, 30, tokenRange(30, 20));
await drive.ftl.durability.flush();
await checkAll(drive, id, 50);

// Full again, and then killed: everything durable is there.
fill();
for (let lba = 0; lba < 20; lba++) await attempt(() => drive.ftl.blocks.write(lba, 1, lbaContent(lba, 1), false));
await drive.abandon();
let opened = false;
await attempt(async () => {
  await (await openWholeFtl(openFolder(folder, systemFileSystem, io), random)).close();
  opened = true;
});
rmSync(ballast);
const again = await openWholeFtl(openFolder(folder, systemFileSystem, io), random);
for (let lba = 20; lba < LBA_COUNT; lba++) assert.equal(await lbaVersion(again.ftl, lba), versions[lba], `LBA ${lba}`);
await assertTokens(again, id, 0, tokenRange(0, 50));
await again.close();
console.log(JSON.stringify({ part, openedWhileFull: opened, failures: Object.fromEntries(failures) }, undefined, 1));
