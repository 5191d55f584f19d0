import { createArena } from '../../daemon/base/arena.ts';
import type { Clock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { Random } from '../../daemon/base/random.ts';
import { Ftl, type FtlModules, type FtlStores } from '../../daemon/ftl/ftl.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { PageKeeper } from './page-keeper.ts';

export interface OpenDrive {
  readonly ftl: Ftl;
  readonly keeper: PageKeeper;
}

/** No time passes: what a drive does on its own accord is not part of a run that a seed repeats. */
const stillClock: Clock = { nowNs: () => 0, wallMs: () => 0, setTimer: () => ({ cancel: () => undefined }) };

/** Opens a drive whose KV room is a PageKeeper. */
export async function openDrive(
  stores: FtlStores,
  random: Random,
  replaced: Partial<FtlModules> = {},
): Promise<OpenDrive> {
  const arena = replaced.arena ?? createArena(4 * 2 ** 20);
  const kernels = loadKernels('wasm', { memory: arena.memory });
  const keeper = new PageKeeper(arena);
  const modules = { arena, kernels, clock: stillClock, random, logger: silentLogger, kvRecovery: keeper, ...replaced };
  return { ftl: await Ftl.open(stores, modules), keeper };
}

export const LBA_BYTES = 4096;

/** An LBA's content for a version: the LBA and the version, over and over. Version 0: never written. */
export function lbaContent(lba: number, version: number): Uint8Array {
  const words = new Uint32Array(LBA_BYTES / 4);
  if (version > 0) words.forEach((_, i) => (words[i] = i % 2 === 0 ? lba : version));
  return new Uint8Array(words.buffer);
}

/** The version an LBA holds; throws if it is not one whole version. */
export async function lbaVersion(ftl: Ftl, lba: number): Promise<number> {
  const bytes = new Uint8Array(LBA_BYTES);
  await ftl.blocks.read(lba, 1, bytes);
  const version = new DataView(bytes.buffer).getUint32(4, true);
  if (Buffer.compare(bytes, lbaContent(lba, version)) !== 0) throw new Error(`LBA ${lba} is no whole version`);
  return version;
}
