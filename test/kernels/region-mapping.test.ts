import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { RegionMapping } from '../../daemon/kernels/native/region-mapping.ts';

const PAGE_BYTES = 4096;
const reason = nativeUnavailable();
const skip = reason === undefined ? false : `NOT TESTED: native kernels: ${reason}`;
const folder = mkdtempSync(join(tmpdir(), 'attndrive-regions-'));
after(() => rmSync(folder, { recursive: true }));

const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8)) & 0xff);

/** Runs `use` on the mapping of a new file of so many bytes. */
function withMapping(
  sizeBytes: number,
  use: (mapping: RegionMapping, file: { path: string; fd: number }) => void,
): void {
  const path = join(folder, 'region');
  writeFileSync(path, pattern(sizeBytes));
  const fd = openSync(path, 'r+');
  const mapping = RegionMapping.tryMap(fd, sizeBytes);
  assert.ok(mapping !== undefined);
  try {
    use(mapping, { path, fd });
  } finally {
    mapping.unmap();
    closeSync(fd);
  }
}

test('what is written through a mapping is in the file, and the other way round', { skip }, () => {
  const sizeBytes = 3 * PAGE_BYTES + 100;
  withMapping(sizeBytes, (mapping, { path }) => {
    const ranges = fc.record({ offset: fc.nat(sizeBytes), length: fc.nat(sizeBytes), seed: fc.nat(255) });
    fc.assert(
      fc.property(ranges, ({ offset, length, seed }) => {
        const bytes = pattern(Math.min(length, sizeBytes - offset)).map((byte) => byte ^ seed);
        assert.equal(mapping.write(offset, bytes), true);
        const back = new Uint8Array(bytes.length);
        assert.equal(mapping.read(offset, back), true);
        assert.deepEqual(back, bytes);
        assert.deepEqual(new Uint8Array(readFileSync(path).subarray(offset, offset + bytes.length)), bytes);
      }),
      { seed: 4, numRuns: 50 },
    );
  });
});

test('a file that is shorter than its mapping: no copy succeeds that would need the rest', { skip }, () => {
  const sizeBytes = 4 * PAGE_BYTES;
  withMapping(sizeBytes, (mapping, { path, fd }) => {
    for (const endBytes of [sizeBytes - 1, 3 * PAGE_BYTES, 2 * PAGE_BYTES + 17, 1, 0]) {
      ftruncateSync(fd, endBytes);
      const bytes = new Uint8Array(PAGE_BYTES);
      for (let offset = 0; offset + bytes.length <= sizeBytes; offset += PAGE_BYTES / 4) {
        const isThere = offset + bytes.length <= endBytes;
        assert.equal(mapping.read(offset, bytes), isThere, `read at ${offset} of ${endBytes}`);
        assert.equal(mapping.write(offset, bytes), isThere, `write at ${offset} of ${endBytes}`);
      }
      assert.equal(statSync(path).size, endBytes, 'it is not made longer');
    }
    ftruncateSync(fd, sizeBytes);
    assert.equal(mapping.read(0, new Uint8Array(sizeBytes)), true, 'and is whole again');
  });
});

test('a file that is shortened and lengthened all the time, under copies of several threads', { skip }, async () => {
  const sizeBytes = 64 * PAGE_BYTES;
  const path = join(folder, 'restless');
  writeFileSync(path, pattern(sizeBytes));
  const fd = openSync(path, 'r+');
  const mapping = RegionMapping.tryMap(fd, sizeBytes);
  assert.ok(mapping !== undefined);
  const copier = `
    const { parentPort, workerData } = require('node:worker_threads');
    const addon = require(workerData.addon);
    const bytes = new Uint8Array(workerData.sizeBytes);
    const counts = [0, 0];
    for (let i = 0; i < 3000; i++) {
      const copy = i % 3 === 0 ? addon.copyToRegion : addon.copyFromRegion;
      counts[Number(copy(workerData.id, 0, bytes))]++;
    }
    parentPort.postMessage(counts);`;
  const addon = new URL('../../daemon/kernels/native/attndrive.node', import.meta.url).pathname;
  const workerData = { addon, id: mapping.id, sizeBytes };
  const results = Array.from(
    { length: 2 },
    () =>
      new Promise<number[]>((resolve, reject) => {
        const worker = new Worker(copier, { eval: true, workerData });
        worker.once('message', resolve).once('error', reject);
      }),
  );
  let running = true;
  const finished = Promise.all(results).finally(() => (running = false));
  let failures = 0;
  while (running) {
    for (let i = 0; i < 20; i++) {
      ftruncateSync(fd, (i % 4) * PAGE_BYTES);
      if (!mapping.read(0, new Uint8Array(sizeBytes))) failures++;
      ftruncateSync(fd, sizeBytes);
      assert.equal(mapping.read(0, new Uint8Array(sizeBytes)), true, 'nobody else shortens it');
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(failures > 0);
  for (const [failed] of await finished) assert.ok((failed as number) > 0, 'other threads found it shortened, too');
  mapping.unmap();
  closeSync(fd);
});

/** How a process ends that maps and faults, as `script` says. `addon`, `fs`, `fd` (of a file of 8 KiB) are there for it. */
function endOf(script: string): { signal: NodeJS.Signals | null; status: number | null } {
  const path = join(folder, 'fault');
  writeFileSync(path, pattern(2 * PAGE_BYTES));
  const addon = new URL('../../daemon/kernels/native/attndrive.node', import.meta.url).pathname;
  const head = `const fs = require('node:fs'); const addon = require(${JSON.stringify(addon)});
    const fd = fs.openSync(${JSON.stringify(path)}, 'r+'); const bytes = new Uint8Array(16);
    const id = addon.mapRegion(fd, 8192);`;
  const { signal, status } = spawnSync(process.execPath, ['-e', head + script], { stdio: 'ignore' });
  return { signal, status };
}

test('only faults in a region under copy are taken: others end the process as ever', { skip }, () => {
  const survived = endOf('fs.ftruncateSync(fd, 0); process.exit(addon.copyFromRegion(id, 0, bytes) ? 1 : 0)');
  assert.deepEqual(survived, { signal: null, status: 0 });
  // The media's own mapping, over the same file: a disk that gives no pages must not be taken for a region.
  const media = `const kernels = addon.create(new Uint8Array(8), fd, 8192, '', -1); fs.ftruncateSync(fd, 0);
    addon.copyFromRegion(id, 0, bytes); kernels.crc32c(0, 8192, 0, 1)`;
  assert.equal(endOf(media).signal, 'SIGBUS');
  assert.equal(endOf("process.kill(process.pid, 'SIGBUS'); setTimeout(() => {}, 5000)").signal, 'SIGBUS');
});

test('what is no copy within a mapping is refused', { skip }, () => {
  withMapping(PAGE_BYTES, (mapping) => {
    assert.throws(() => mapping.read(PAGE_BYTES - 1, new Uint8Array(2)), /outside/);
    assert.throws(() => mapping.read(-1, new Uint8Array(1)), /outside/);
    assert.throws(() => mapping.write(Number.NaN, new Uint8Array(1)), /outside/);
    assert.throws(() => mapping.write(2 ** 60, new Uint8Array(1)), /outside/);
    assert.equal(mapping.read(PAGE_BYTES, new Uint8Array(0)), true);
  });
  assert.equal(RegionMapping.tryMap(-1, PAGE_BYTES), undefined);
});
