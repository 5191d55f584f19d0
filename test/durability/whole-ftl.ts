/** The flash translation layer with its sequences, on real files, opened again and again in one process. */
import { type Arena, createArena } from '../../daemon/base/arena.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { Random } from '../../daemon/base/random.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';
import { Ftl, type FtlStores } from '../../daemon/ftl/ftl.ts';
import type { Kernels } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { ManualClock, type Opened } from '../kv/fixture.ts';

const ARENA_BYTES = 64 * 2 ** 20;

export interface WholeFtl extends Opened {
  readonly ftl: Ftl;
  close(): Promise<void>;
  /** Lets go of everything as a killed process does. */
  abandon(): Promise<void>;
}

let shared: { arena: Arena; kernels: Kernels } | undefined;

/** What an abandoned drive had taken of the arena stays taken, so it is made anew now and then. */
function memory(): { arena: Arena; kernels: Kernels } {
  if (shared === undefined || shared.arena.freeBytes < ARENA_BYTES / 4) {
    const arena = createArena(ARENA_BYTES);
    shared = { arena, kernels: loadKernels('wasm', { memory: arena.memory }) };
  }
  return shared;
}

/** So that segments of the staging log change in runs of a few hundred steps. */
const SEGMENT_BYTES_MAX = 8 * 1024;

export async function openWholeFtl(stores: FtlStores, random: Random): Promise<WholeFtl> {
  const { arena, kernels } = memory();
  const clock = new ManualClock();
  const store = new SequenceStore({ arena, kernels, clock });
  const ftl = await Ftl.open(stores, {
    arena,
    kernels,
    clock,
    random,
    logger: silentLogger,
    kvRecovery: store,
    stagingSegmentBytesMax: SEGMENT_BYTES_MAX,
  });
  const readPage = async (lpn: Lpn): Promise<Uint8Array> => {
    const frame = arena.allocate(ftl.kv.pageSizeBytes);
    try {
      await ftl.kv.read(lpn, frame);
      return arena.view(frame, ftl.kv.pageSizeBytes).slice();
    } finally {
      arena.free(frame);
    }
  };
  const close = async (): Promise<void> => {
    store.close();
    await ftl.close();
  };
  const abandon = async (): Promise<void> => {
    store.close();
    await ftl.abandon();
  };
  return { arena, store, readPage, ftl, close, abandon };
}
