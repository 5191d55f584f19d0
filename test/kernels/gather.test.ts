import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { RegionMapping } from '../../daemon/kernels/native/region-mapping.ts';
import { ARENA_RESERVED_BYTES, createArena } from '../../daemon/base/arena.ts';
import { assembleJob, type KernelName, kernelNames, NO_REGION } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';

const SPAN_BYTES = 4096;
const reason = nativeUnavailable();
const skipOf = (name: KernelName): string | false =>
  name === 'native' && reason !== undefined ? `NOT TESTED: native kernels: ${reason}` : false;

for (const name of kernelNames) {
  test(`${name}: rows that lie apart come to lie one behind the other, and nothing else changes`, {
    skip: skipOf(name),
  }, () => {
    const arena = createArena(1 << 20);
    const kernels = loadKernels(name, arena);
    const base = arena.allocate(3 * SPAN_BYTES);
    const shape = fc.record({
      rowBytes: fc.integer({ min: 1, max: 300 }),
      gap: fc.nat(400),
      count: fc.nat(5),
      at: fc.nat(90),
    });
    fc.assert(
      fc.property(shape, ({ rowBytes, gap, count, at }) => {
        const before = Uint8Array.from({ length: 3 * SPAN_BYTES }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
        arena.bytes.set(before, base);
        const expected = before.slice();
        const target = 2 * SPAN_BYTES + at;
        for (let row = 0; row < count; row++) {
          const from = at + row * (rowBytes + gap);
          expected.set(before.subarray(from, from + rowBytes), target + row * rowBytes);
        }
        kernels.gather(base + at, rowBytes + gap, rowBytes, count, base + target);
        assert.ok(Buffer.compare(arena.view(base, before.length), expected) === 0);
      }),
      { seed: 3 },
    );
  });
}

interface Append {
  readonly headCount: number;
  readonly headMajor: number;
  readonly rowBytes: readonly [number, number];
  readonly groupTokens: number;
  readonly groupCount: number;
  readonly firstToken: number;
  readonly tailCount: number;
  readonly moreTokens: number;
  readonly firstPage: number;
  readonly pageCount: number;
}

const PAGE_BYTES = 2048;
const SLAB_BYTES = 65_536;
const appends: fc.Arbitrary<Append> = fc
  .record({
    headCount: fc.integer({ min: 1, max: 5 }),
    headMajor: fc.nat(1),
    rowBytes: fc.tuple(fc.constantFrom(20, 128, 256, 512), fc.constantFrom(36, 128, 256, 512)),
    groupCount: fc.integer({ min: 1, max: 3 }),
    firstToken: fc.nat(5),
    moreTokens: fc.nat(3),
    draws: fc.tuple(fc.nat(), fc.nat(), fc.nat(), fc.nat()),
  })
  .map(({ draws, ...append }) => {
    const groupTokens = 1 + (draws[0] % Math.floor(PAGE_BYTES / Math.max(...append.rowBytes)));
    const pages = append.groupCount * append.headCount * 2;
    const firstPage = draws[1] % pages;
    const pageCount = 1 + (draws[2] % (pages - firstPage));
    return { ...append, groupTokens, firstPage, pageCount, tailCount: draws[3] % groupTokens };
  });

/** The tokens that an append has rows of. */
const tokenCountOf = (append: Append): number =>
  append.firstToken + append.groupCount * append.groupTokens - append.tailCount + append.moreTokens;

/** The pages as the description of the job says, byte by byte. */
function expectedPages(append: Append, rows: Uint8Array, slab: Uint8Array): Uint8Array {
  const { headCount, rowBytes, groupTokens, groupCount, firstToken, tailCount } = append;
  const tokenCount = tokenCountOf(append);
  const pages = new Uint8Array(append.pageCount * PAGE_BYTES);
  for (let i = 0; i < append.pageCount; i++) {
    const group = (append.firstPage + i) % groupCount;
    const stream = Math.floor((append.firstPage + i) / groupCount);
    const [head, part] = [stream >> 1, stream & 1];
    const bytes = rowBytes[part]!;
    for (let t = 0; t < groupTokens; t++) {
      const place = group * groupTokens + t;
      const token = firstToken + place - tailCount;
      const index = append.headMajor === 1 ? head * tokenCount + token : token * headCount + head;
      const inSlab = (head * 2 + part) * PAGE_BYTES + place * bytes;
      const inRows = (part === 1 ? tokenCount * headCount * rowBytes[0] : 0) + index * bytes;
      const row = place < tailCount ? slab.subarray(inSlab, inSlab + bytes) : rows.subarray(inRows, inRows + bytes);
      pages.set(row, i * PAGE_BYTES + t * bytes);
    }
  }
  return pages;
}

for (const [name, inRegion] of [...kernelNames.map((kernel) => [kernel, false]), ['native', true]] as [
  KernelName,
  boolean,
][]) {
  test(`${name}: pages of an append${inRegion ? ' whose rows lie in a region' : ''}, and their sums`, {
    skip: skipOf(name),
  }, () => {
    const arena = createArena(4 << 20);
    const kernels = loadKernels(name, arena);
    const region = inRegion ? openRegion(1 << 20) : undefined;
    const [rowsAt, slabAt, target, checksums] = [1 << 20, SLAB_BYTES, 1 << 19, 256].map((size) => arena.allocate(size));
    const job = arena.allocate(assembleJob.sizeBytes);
    fc.assert(
      fc.property(appends, fc.nat(), (append, seed) => {
        const { headCount, rowBytes, tailCount, pageCount } = append;
        const tokenCount = tokenCountOf(append);
        const keyBytes = tokenCount * headCount * rowBytes[0];
        const noise = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 89 + (i >> 7) + seed) & 0xff);
        const rows = noise(keyBytes + tokenCount * headCount * rowBytes[1]);
        const slab = noise(SLAB_BYTES);
        arena.bytes.set(slab, slabAt);
        if (region === undefined) arena.bytes.set(rows, rowsAt);
        else assert.ok(region.mapping.write(0, rows));
        const keys = region === undefined ? rowsAt! : 0;
        const { rowBytes: _, moreTokens: __, ...fields } = append;
        assembleJob.encode(
          {
            ...fields,
            keys,
            values: keys + keyBytes,
            region: region?.mapping.id ?? NO_REGION,
            tokenCount,
            rowBytesK: rowBytes[0],
            rowBytesV: rowBytes[1],
            tailKeys: slabAt!,
            tailValues: slabAt! + PAGE_BYTES,
            tailStrideBytes: 2 * PAGE_BYTES,
            pageBytes: PAGE_BYTES,
            target: target!,
            checksums: checksums!,
          },
          arena.bytes,
          job,
        );
        arena.bytes.fill(0xa5, target, target! + (pageCount + 1) * PAGE_BYTES);
        assert.equal(kernels.assemble(job), true);
        const pages = arena.view(target!, pageCount * PAGE_BYTES);
        assert.ok(Buffer.compare(pages, expectedPages(append, rows, slab)) === 0, `tail of ${tailCount}`);
        assert.equal(arena.bytes[target! + pageCount * PAGE_BYTES], 0xa5, 'nothing behind them');
        const sums = Array.from(new Uint32Array(arena.buffer, checksums, pageCount));
        const expected = sums.map((_sum, i) => crc32c(pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES)));
        assert.deepEqual(sums, expected);
      }),
      { seed: 5, numRuns: 150 },
    );
    region?.close();
  });
}

/** A file of somebody else's. */
function openRegion(sizeBytes: number): { mapping: RegionMapping; fd: number; close(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-rows-'));
  const fd = openSync(join(folder, 'region'), 'w+');
  ftruncateSync(fd, sizeBytes);
  const mapping = RegionMapping.tryMap(fd, sizeBytes);
  assert.ok(mapping !== undefined);
  const close = (): void => {
    mapping.unmap();
    closeSync(fd);
    rmSync(folder, { recursive: true });
  };
  return { mapping, fd, close };
}

test('native: rows of a region whose file has become shorter are not taken', { skip: skipOf('native') }, () => {
  const arena = createArena(1 << 20);
  const kernels = loadKernels('native', arena);
  const region = openRegion(16_384);
  const target = arena.allocate(16_384);
  const gather = (): boolean => kernels.gather(0, 512, 256, 32, target, region.mapping.id);
  const job = arena.allocate(assembleJob.sizeBytes);
  const shape = { headCount: 1, tokenCount: 8, rowBytesK: 256, rowBytesV: 256, groupTokens: 8, groupCount: 1 };
  const pages = { pageBytes: PAGE_BYTES, pageCount: 1, target, checksums: arena.allocate(64) };
  const rows = { keys: 8192, values: 10_240, region: region.mapping.id };
  assembleJob.encode({ ...shape, ...pages, ...rows }, arena.bytes, job);
  for (const [sizeBytes, isThere] of [
    [16_384, true],
    [12_287, false],
    [8192, false],
    [0, false],
    [16_384, true],
  ] as const) {
    ftruncateSync(region.fd, sizeBytes);
    assert.equal(gather(), isThere, `gather from ${sizeBytes} bytes`);
    assert.equal(kernels.assemble(job), isThere, `assemble from ${sizeBytes} bytes`);
  }
  // What would read or write elsewhere is refused before anything is.
  const wrong = [
    { tokenCount: 2 ** 32 - 1 },
    { keys: 16_384 },
    { values: 14_337 },
    { firstToken: 1 },
    { tailCount: 8 },
    { groupTokens: 9 },
    { firstPage: 2 },
    { headCount: 0 },
    { pageBytes: 2047 },
    { target: arena.sizeBytes - 100 },
    { checksums: arena.sizeBytes },
    { region: 1000 },
  ];
  for (const fields of wrong) {
    assembleJob.encode({ ...shape, ...pages, ...rows, ...fields }, arena.bytes, job);
    assert.throws(() => kernels.assemble(job), /assemble/, JSON.stringify(fields));
  }
  region.close();
});

test('native: rows outside the arena are refused', { skip: skipOf('native') }, () => {
  const arena = createArena(1 << 20);
  const kernels = loadKernels('native', arena);
  const inside = ARENA_RESERVED_BYTES;
  const wrong: readonly [number, number, number, number, number][] = [
    [arena.sizeBytes - 100, 64, 64, 2, inside],
    [inside, 64, 64, 2, arena.sizeBytes - 127],
    [inside, 63, 64, 1, inside],
    [inside, 2 ** 40, 64, 2, inside],
    [inside, 64, 64, 2 ** 52, inside],
    [2 ** 53 - 1, 64, 64, 1, inside],
  ];
  for (const rows of wrong) assert.throws(() => kernels.gather(...rows), /outside/, rows.join(' '));
});
