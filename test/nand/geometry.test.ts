import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { limits } from '../../spec/limits.ts';
import {
  channelOf,
  completeGeometry,
  type GeometryRequest,
  mediaSizes,
  pageInBlockOf,
  planGeometry,
  ppnOf,
  RESERVE_SUPERBLOCKS,
  superblockOf,
  unitOf,
} from '../../daemon/nand/geometry.ts';

const KIB = 2 ** 10;
const GIB = 2 ** 30;

const requests: fc.Arbitrary<GeometryRequest> = fc.record({
  // As many small ones as large ones.
  blockCapacityBytes: fc.double({ min: 12, max: 40, noNaN: true }).map((exponent) => Math.floor(2 ** exponent)),
  kvCapacityBytes: fc.double({ min: 16, max: 40, noNaN: true }).map((exponent) => Math.floor(2 ** exponent)),
  pageSizeBytes: fc.constantFrom(4, 8, 16, 32, 64).map((kib) => kib * KIB),
  channelCount: fc.integer({ min: 1, max: limits.channelCountMax }),
  diesPerChannel: fc.integer({ min: 1, max: 8 }),
  overProvisioning: fc.double({ min: 0.01, max: 0.5, noNaN: true }),
});

test('any capacity gets enough superblocks and the room that it asked for', () => {
  fc.assert(
    fc.property(requests, (request) => {
      const geometry = planGeometry(request);
      const { superblockCount, blockSuperblockCount, kvSuperblockCount, pagesPerSuperblock, pageSizeBytes } = geometry;
      assert.ok(superblockCount >= limits.superblockCountMin);
      assert.equal(blockSuperblockCount + kvSuperblockCount, superblockCount);
      assert.equal(geometry.pageCount, superblockCount * pagesPerSuperblock);
      assert.equal(geometry.unitCount, request.channelCount * request.diesPerChannel);
      const superblockBytes = pagesPerSuperblock * pageSizeBytes;
      for (const [asked, given, count, reserve] of [
        [request.blockCapacityBytes, geometry.blockCapacityBytes, blockSuperblockCount, RESERVE_SUPERBLOCKS.block],
        [request.kvCapacityBytes, geometry.kvCapacityBytes, kvSuperblockCount, RESERVE_SUPERBLOCKS.kv],
      ] as const) {
        assert.ok(given >= asked && given - asked < pageSizeBytes && given % pageSizeBytes === 0);
        assert.ok((count - reserve) * superblockBytes >= given * (1 + request.overProvisioning) - superblockBytes);
      }
      assert.ok(mediaSizes(geometry).cells < Number.MAX_SAFE_INTEGER);
    }),
    { seed: 1, numRuns: 500 },
  );
});

test('large drives do not pay for it with tiny erase blocks, nor with a large reserve', () => {
  const geometry = planGeometry({
    blockCapacityBytes: 50 * GIB,
    kvCapacityBytes: 50 * GIB,
    pageSizeBytes: 16 * KIB,
    channelCount: 8,
    diesPerChannel: 1,
    overProvisioning: 0.07,
  });
  assert.equal(geometry.pagesPerBlock, 256);
  const rawBytes = geometry.pageCount * geometry.pageSizeBytes;
  assert.ok(rawBytes < 1.08 * 100 * GIB, `${rawBytes / GIB} GiB of flash for 100 GiB`);
});

test('a page number names one place and a place one number', () => {
  const geometry = planGeometry({
    blockCapacityBytes: 2 ** 20,
    kvCapacityBytes: 2 ** 20,
    pageSizeBytes: 4 * KIB,
    channelCount: 3,
    diesPerChannel: 2,
    overProvisioning: 0.07,
  });
  for (let ppn = 0; ppn < geometry.pageCount; ppn++) {
    const unit = unitOf(geometry, ppn);
    assert.equal(ppnOf(geometry, superblockOf(geometry, ppn), pageInBlockOf(geometry, ppn), unit), ppn);
    assert.ok(superblockOf(geometry, ppn) < geometry.superblockCount);
    assert.ok(pageInBlockOf(geometry, ppn) < geometry.pagesPerBlock);
    assert.equal(channelOf(geometry, unit), (ppn % geometry.unitCount) % 3, 'neighbours are on neighbouring channels');
  }
});

test('what the superblock file stores is enough to have the geometry back', () => {
  fc.assert(
    fc.property(requests, (request) => {
      const geometry = planGeometry(request);
      assert.deepEqual(completeGeometry(geometry), geometry);
    }),
    { seed: 2, numRuns: 50 },
  );
});

test('values that are not allowed are named with what is', () => {
  const right = {
    blockCapacityBytes: 2 ** 20,
    kvCapacityBytes: 2 ** 20,
    pageSizeBytes: 16 * KIB,
    channelCount: 8,
    diesPerChannel: 1,
    overProvisioning: 0.07,
  };
  const refused = (wrong: Partial<GeometryRequest>, message: RegExp): void =>
    assert.throws(() => planGeometry({ ...right, ...wrong }), { code: 'invalidField', message });
  refused({ pageSizeBytes: 12 * KIB }, /page size 12288; allowed: a power of two from 4096 to 65536/);
  refused({ pageSizeBytes: 2 * KIB }, /page size 2048/);
  refused({ channelCount: 0 }, /channels 0; allowed: an integer from 1 to 64/);
  refused({ channelCount: 65 }, /channels 65/);
  refused({ diesPerChannel: 1.5 }, /dies per channel 1.5/);
  refused({ blockCapacityBytes: 0 }, /block capacity 0/);
  refused({ kvCapacityBytes: Number.NaN }, /KV capacity NaN/);
  refused({ overProvisioning: 0 }, /over-provisioning 0/);
  refused(
    { kvCapacityBytes: 2 ** 44, pageSizeBytes: 4 * KIB },
    /blocks of 4 KiB with all that is set aside; allowed: at most 4294967295/,
  );
});
