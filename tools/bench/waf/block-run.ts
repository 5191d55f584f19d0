/** Write amplification of the block namespace in steady state. */
import { createSeededRandom } from '../../../daemon/base/random.ts';
import { GC_RESERVE_SUPERBLOCKS, type GcOptions } from '../../../daemon/ftl/gc-options.ts';
import { CliError } from '../../cli/cli-error.ts';
import { type MapDrive, openMapDrive } from './map-drive.ts';
import type { Traffic } from './traffic.ts';

export interface BlockRun {
  readonly lbaCount: number;
  readonly pagesPerSuperblock: number;
  readonly overProvisioning: number;
  readonly gc: GcOptions;
  readonly traffic: Traffic;
  /** Windows that are measured once the state is steady. */
  readonly windowCount: number;
  readonly seed: number;
}

export interface BlockResult {
  /** Pages programmed for each page that the host wrote. */
  readonly writeAmplification: number;
  /** Flash pages that hold something for each logical page: what room is left unused is known beforehand. */
  readonly alpha: number;
  readonly superblockCount: number;
  /** Capacities written before the state was steady. */
  readonly warmUpCapacities: number;
}

/** A window is a quarter of the capacity. */
const WINDOWS_PER_CAPACITY = 4;
/** Before anything may be called steady. */
const WARM_UP_CAPACITIES_MIN = 3;
const WARM_UP_CAPACITIES_MAX = 32;
/** Two capacities in a row differ by less. */
const STEADY_TOLERANCE = 0.005;

/** Fills the namespace once, writes it over until it is steady, then measures. CliError if it never is. */
export async function runBlocks(
  run: BlockRun,
  onWindow: (text: string) => void = () => undefined,
): Promise<BlockResult> {
  const drive = await openMapDrive({
    blockPages: run.lbaCount,
    kvPages: 1,
    pagesPerSuperblock: run.pagesPerSuperblock,
    channelCount: 1,
    overProvisioning: run.overProvisioning,
    gc: run.gc,
    seed: run.seed,
  });
  const { geometry, spaces } = drive.ftl;
  const next = run.traffic.picker(run.lbaCount, createSeededRandom(run.seed));
  const page = drive.arena.view(drive.frame, geometry.pageSizeBytes);
  for (let lba = 0; lba < run.lbaCount; lba++) await drive.ftl.blocks.write(lba, 1, page, false);
  const window = async (): Promise<number> => {
    const count = Math.round(run.lbaCount / WINDOWS_PER_CAPACITY);
    const before = programs(drive);
    for (let i = 0; i < count; i++) await drive.ftl.blocks.write(next(), 1, page, false);
    return (programs(drive) - before) / count;
  };
  const warmUp: number[] = [];
  while (!isSteady(warmUp)) {
    if (warmUp.length >= WARM_UP_CAPACITIES_MAX * WINDOWS_PER_CAPACITY) {
      throw new CliError(`not steady after ${WARM_UP_CAPACITIES_MAX} capacities: ${warmUp.slice(-8).join(', ')}`);
    }
    warmUp.push(await window());
    onWindow(`warming up, ${warmUp.length / WINDOWS_PER_CAPACITY} capacities, ${warmUp.at(-1)!.toFixed(3)}`);
  }
  const measured: number[] = [];
  for (let i = 0; i < run.windowCount; i++) {
    measured.push(await window());
    onWindow(`measuring, window ${i + 1} of ${run.windowCount}, ${measured.at(-1)!.toFixed(3)}`);
  }
  const superblockCount = geometry.blockSuperblockCount;
  const unusedPages = GC_RESERVE_SUPERBLOCKS * run.pagesPerSuperblock + spaces.block.thresholds.startPages;
  await drive.close();
  return {
    writeAmplification: mean(measured),
    alpha: (superblockCount * run.pagesPerSuperblock - unusedPages) / run.lbaCount,
    superblockCount,
    warmUpCapacities: warmUp.length / WINDOWS_PER_CAPACITY,
  };
}

function programs({ ftl }: MapDrive): number {
  const { block, gc, wear } = ftl.flash.array.counters.programs;
  return block + gc + wear;
}

function isSteady(windows: readonly number[]): boolean {
  if (windows.length < WARM_UP_CAPACITIES_MIN * WINDOWS_PER_CAPACITY) return false;
  const last = mean(windows.slice(-WINDOWS_PER_CAPACITY));
  const before = mean(windows.slice(-2 * WINDOWS_PER_CAPACITY, -WINDOWS_PER_CAPACITY));
  return Math.abs(last / before - 1) < STEADY_TOLERANCE;
}

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
