import { createSeededRandom } from '../../daemon/base/random.ts';
import { UNMAPPED } from '../../daemon/ftl/segmented-map.ts';
import type { MemoryDriveStores } from '../ftl/memory-stores.ts';
import { openWorkingDrive } from './working-drive.ts';

/** What a drive that is started on a copy of these stores says is in use: by its live maps, not by an image. */
export async function usedSlots(drive: MemoryDriveStores): Promise<{
  inUse: ReadonlySet<number>;
  /** Slots of KV pages behind the first: their cells count, their entries don't. */
  withoutEntry: ReadonlySet<number>;
}> {
  const { slotsPerPage } = drive.geometry;
  const random = createSeededRandom(1);
  const opened = await openWorkingDrive(drive.afterPowerCut(random).stores(), random);
  const { blocks, kv } = opened.ftl;
  const inUse = new Set(blocks.map.entries.filter((slot) => slot !== UNMAPPED));
  const withoutEntry = new Set<number>();
  for (const ppn of kv.map.entries.filter((mapped) => mapped !== UNMAPPED)) {
    for (let slot = ppn * slotsPerPage; slot < (ppn + 1) * slotsPerPage; slot++) {
      inUse.add(slot);
      if (slot % slotsPerPage > 0) withoutEntry.add(slot);
    }
  }
  await opened.end('killed');
  return { inUse, withoutEntry };
}
