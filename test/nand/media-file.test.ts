import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync, statSync, truncateSync, unlinkSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { after, test } from 'node:test';
import { CellReader } from '../../daemon/nand/cell-reader.ts';
import { oobBytesPerPage, planGeometry } from '../../daemon/nand/geometry.ts';
import { createMediaFiles, MediaFile } from '../../daemon/nand/media-file.ts';

const geometry = planGeometry({
  blockCapacityBytes: 2 ** 20,
  kvCapacityBytes: 2 ** 20,
  pageSizeBytes: 16_384,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.07,
});
const uuid = new Uint8Array(16).fill(9);
const folders: string[] = [];

async function makeFolder(): Promise<string> {
  const folder = mkdtempSync(`${tmpdir()}/attndrive-media-`);
  folders.push(folder);
  await createMediaFiles(folder, geometry, uuid);
  return folder;
}
after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

function patch(path: string, position: number, ...bytes: number[]): void {
  const descriptor = openSync(path, 'r+');
  writeSync(descriptor, new Uint8Array(bytes), 0, bytes.length, position);
  closeSync(descriptor);
}

test('pages, entries and headers are where they were put, after a restart too', async () => {
  const folder = await makeFolder();
  const media = MediaFile.open(folder, geometry, uuid);
  const page = new Uint8Array(16_384).map((_, i) => i * 13);
  const oob = new Uint8Array(oobBytesPerPage(geometry)).map((_, i) => i);
  media.program(17, page, oob);
  media.writeSuperblockHeader(3, new Uint8Array(64).fill(3));
  await media.sync();
  await media.close();
  const again = MediaFile.open(folder, geometry, uuid);
  const cells = new Uint8Array(3 * 16_384);
  await again.readCells(16 * 16_384, cells);
  assert.equal(Buffer.compare(cells.subarray(16_384, 2 * 16_384), page), 0);
  assert.ok(cells.subarray(0, 16_384).every((byte) => byte === 0));
  const entries = new Uint8Array(oob.length);
  await again.readOob(17, entries);
  assert.deepEqual(entries, oob);
  const headers = await again.readSuperblockHeaders();
  assert.equal(headers.length, geometry.superblockCount * 64);
  assert.ok(headers.subarray(3 * 64, 4 * 64).every((byte) => byte === 3));
  const target = new Uint8Array(16_384);
  const { cellsDescriptor, oobDescriptor, cellsSizeBytes } = again.files;
  const reader = new CellReader({
    cells: { fileDescriptor: cellsDescriptor, sizeBytes: cellsSizeBytes },
    oobFileDescriptor: oobDescriptor,
    geometry,
  });
  assert.ok(reader.read(17, target));
  assert.equal(Buffer.compare(target, page), 0);
  await again.close();
});

test('the files take room on disk only where something was written', async () => {
  const folder = await makeFolder();
  for (const name of ['cells', 'oob', 'blocks']) {
    assert.ok(statSync(`${folder}/media/${name}.bin`).blocks * 512 <= 65_536, `${name}.bin is sparse`);
  }
});

test('a file that is not right is named, with what was found and what must be', async () => {
  for (const [kind, spoil, message] of [
    ['cells', (path: string) => unlinkSync(path), /cells\.bin: is missing; it is part of the drive/],
    ['oob', (path: string) => truncateSync(path, 70_000), /oob\.bin: 70000 bytes long; must be \d+/],
    ['blocks', (path: string) => truncateSync(path, 10), /blocks\.bin: does not begin with ATTNDRIV/],
    ['cells', (path: string) => patch(path, 0, 0x58), /cells\.bin: does not begin with ATTNDRIV/],
    ['cells', (path: string) => patch(path, 8, 9), /cells\.bin: format version 9; this program reads 1/],
    ['oob', (path: string) => patch(path, 33, 0xff), /oob\.bin: header checksum is wrong/],
  ] as const) {
    const folder = await makeFolder();
    spoil(`${folder}/media/${kind}.bin`);
    assert.throws(() => MediaFile.open(folder, geometry, uuid), { code: 'mediaFormat', message });
  }
});

test('files of another drive are refused', async () => {
  const folder = await makeFolder();
  const other = new Uint8Array(16).fill(0xab);
  assert.throws(() => MediaFile.open(folder, geometry, other), {
    code: 'mediaFormat',
    message: /belongs to drive 0909/,
  });
});
