/** A whole drive in memory, below the commands: both namespaces with real work in them. */
import { createArena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { Random } from '../../daemon/base/random.ts';
import { Ftl, type FtlModules, type FtlStores } from '../../daemon/ftl/ftl.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { appendRows, createSequence, ManualClock, type Opened, tokenRange } from '../kv/fixture.ts';

export interface WorkingDrive extends Opened {
  readonly ftl: Ftl;
  /** In order, or as a killed process would leave it. */
  end(how: 'clean' | 'killed'): Promise<void>;
}

export async function openWorkingDrive(
  stores: FtlStores,
  random: Random,
  replaced: Partial<FtlModules> = {},
): Promise<WorkingDrive> {
  const arena = createArena(4 * 2 ** 20);
  const kernels = loadKernels('wasm', { memory: arena.memory });
  const clock = new ManualClock();
  const store = new SequenceStore({ arena, kernels, clock });
  const modules = { arena, kernels, clock, random, logger: silentLogger, kvRecovery: store, ...replaced };
  const ftl = await Ftl.open(stores, modules);
  return {
    arena,
    store,
    ftl,
    readPage: () => Promise.reject(new Error('not here')),
    async end(how) {
      store.close();
      await (how === 'clean' ? ftl.close() : ftl.abandon());
    },
  };
}

/** Random work on both namespaces: writes, deallocations, appends, forks, truncates, reclaims, flushes. */
export async function work(drive: WorkingDrive, random: Random, steps: number): Promise<void> {
  const { ftl, store } = drive;
  const below = (end: number): number => random.nextUint32() % end;
  const pick = <T>(items: readonly T[]): T => items[below(items.length)]!;
  for (let step = 0; step < steps; step++) {
    const ids = store.list(0n, 100);
    const roll = below(100);
    try {
      if (roll < 30) {
        const count = 1 + below(6);
        const lba = below(ftl.blocks.lbaCount - count);
        await ftl.blocks.write(lba, count, random.bytes(4096 * count), roll < 5);
      } else if (roll < 34) await ftl.blocks.deallocate(below(ftl.blocks.lbaCount - 8), 1 + below(8));
      else if (roll < 40 || ids.length === 0) {
        if (ids.length < 8) createSequence(drive, { layerCount: 1 + below(3), groupTokens: 1 + below(16) });
      } else if (roll < 78) {
        const id = pick(ids);
        const layer = below(store.shape(id).layerCount);
        const length = store.summary(id).lengths[layer]!;
        await appendRows(drive, id, layer, length, tokenRange(length, 1 + below(40)));
      } else if (roll < 84) {
        if (ids.length < 8)
          await store.fork(pick(ids), below(80), { id: 0n, label: 'fork', leaseSeconds: 0, owner: 8n });
      } else if (roll < 90) {
        const id = pick(ids);
        const layer = below(store.shape(id).layerCount);
        const length = store.summary(id).lengths[layer]!;
        await store.truncate(id, layer, below(length + 1));
      } else if (roll < 94) await store.reclaim(pick(ids));
      else if (roll < 97) await ftl.durability.flush();
      else await ftl.durability.syncStaging();
    } catch (error) {
      if (!(error instanceof DriveError) || error.code !== 'capacityExceeded') throw error;
    }
  }
}
