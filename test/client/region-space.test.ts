import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { Region } from '../../client/region.ts';
import { RegionSpace, type RegionSlice } from '../../client/region-space.ts';

const MIB = 1 << 20;

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Regions without a drive: sparse files. */
function createRegions(): { create: (sizeBytes: number) => Promise<Region>; regions: Region[]; clear: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-space-'));
  folders.push(folder);
  const regions: Region[] = [];
  const create = async (sizeBytes: number): Promise<Region> => {
    await new Promise((resolve) => setImmediate(resolve));
    const key = regions.length + 1;
    const path = join(folder, `${key}`);
    const file = openSync(path, 'w');
    ftruncateSync(file, sizeBytes);
    closeSync(file);
    const region = new Region({ key, sizeBytes, path, isMapped: true }, { delete: async () => undefined });
    regions.push(region);
    return region;
  };
  const clear = (): void => {
    for (const region of regions) region.closeFile();
    rmSync(folder, { recursive: true });
  };
  return { create, regions, clear };
}

test('slices never overlap, stay inside, and all of the space comes back', async () => {
  const step = fc.oneof(fc.record({ take: fc.integer({ min: 1, max: 6 * MIB }) }), fc.record({ drop: fc.nat(30) }));
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const { create, regions, clear } = createRegions();
      const space = new RegionSpace({ sizeBytesMax: 40 * MIB }, { create });
      const held: RegionSlice[] = [];
      for (const action of steps) {
        if ('drop' in action) {
          const [slice] = held.splice(action.drop % Math.max(1, held.length), 1);
          if (slice) space.release(slice);
          continue;
        }
        const slice = await space.allocate(action.take).catch((error: { code: string }) => {
          assert.equal(error.code, 'clientLimit');
        });
        if (!slice) continue;
        assert.ok(slice.sizeBytes >= action.take && slice.offset + slice.sizeBytes <= slice.region.sizeBytes);
        for (const other of held) {
          const apart =
            slice.offset >= other.offset + other.sizeBytes || other.offset >= slice.offset + slice.sizeBytes;
          assert.ok(other.region !== slice.region || apart, 'two slices overlap');
        }
        held.push(slice);
      }
      for (const slice of held.splice(0)) space.release(slice);
      // Whole regions are free again: pieces that lay side by side were joined.
      for (const region of [...regions].sort((a, b) => b.sizeBytes - a.sizeBytes)) {
        held.push(await space.allocate(region.sizeBytes));
      }
      assert.ok(regions.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) <= 40 * MIB);
      clear();
    }),
    { seed: 20_263, numRuns: 60 },
  );
});

test('temporary slices wait for room in turn; with nothing to wait for they are refused', async () => {
  const { create, clear } = createRegions();
  const space = new RegionSpace({ sizeBytesMax: MIB }, { create });
  const first = await space.allocateTemporary(MIB);
  const order: number[] = [];
  const waiting = [1, 2].map(async (name) => {
    const slice = await space.allocateTemporary(MIB);
    order.push(name);
    space.releaseTemporary(slice);
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(order, []);
  await assert.rejects(space.allocate(1), { code: 'clientLimit' });
  space.releaseTemporary(first);
  await Promise.all(waiting);
  assert.deepEqual(order, [1, 2]);
  await assert.rejects(space.allocateTemporary(2 * MIB), { code: 'clientLimit' });
  const prepared = await space.allocate(MIB);
  await assert.rejects(space.allocateTemporary(1), { code: 'clientLimit' });
  space.release(prepared);
  clear();
});
