import { DriveError } from '../base/errors.ts';
import type { Chip } from '../nand/chip.ts';
import type { BadBlockReason, BlockTable, WearSummary } from '../nand/block-table.ts';
import { type Geometry, neededSuperblocks } from '../nand/geometry.ts';

/** How worn the drive is, and how much may still fail. */
export interface EnduranceSnapshot extends WearSummary {
  /** So many blocks are bad that nothing more is written. */
  readonly isReadOnly: boolean;
  /** Bad erase blocks, by how they became bad. */
  readonly badBlockCounts: Readonly<Record<BadBlockReason, number>>;
  /** Good erase blocks beyond one for each superblock, over all units. */
  readonly spareBlockCount: number;
  /**
   * Blocks that may still fail before the drive is read-only, of those that might when it left the factory, in the unit
   * with the smallest share: 0 to 100, rounded down. What over-provisioning has beyond the drive's needs is part of it.
   */
  readonly availableSparePercent: number;
  /** Mean erases of the rated cycles, rounded down; may exceed 100. 0 if blocks do not wear out. */
  readonly percentUsed: number;
  /** undefined: blocks do not wear out. */
  readonly ratedCycles: number | undefined;
}

/** Fewer superblocks are left than both capacities and garbage collection need: nothing more is written. */
export function isWornOut(blocks: BlockTable, geometry: Geometry): boolean {
  const needed = neededSuperblocks(geometry);
  return blocks.superblockCount - blocks.retired.size < needed.block + needed.kv;
}

export const readOnlyError = (): DriveError =>
  new DriveError('namespaceWriteProtected', 'too many erase blocks are bad; what is stored can be read');

export function takeEndurance(blocks: BlockTable, geometry: Geometry, chip: Chip): EnduranceSnapshot {
  const { ratedCycles } = chip.profile.endurance;
  const badBlockCounts: Record<BadBlockReason, number> = { factory: 0, program: 0, erase: 0 };
  const factoryBad = new Uint32Array(blocks.unitCount);
  for (const { unit, reason } of blocks.badBlocks()) {
    badBlockCounts[reason]++;
    if (reason === 'factory') factoryBad[unit]!++;
  }
  const needed = neededSuperblocks(geometry);
  const neededCount = needed.block + needed.kv;
  const superblocksLeft = blocks.superblockCount - blocks.retired.size;
  let spareBlockCount = 0;
  let availableShare = 1;
  for (let unit = 0; unit < blocks.unitCount; unit++) {
    spareBlockCount += Math.max(0, blocks.goodCount(unit) - superblocksLeft);
    const atFirst = blocks.blocksPerUnit - factoryBad[unit]! - neededCount;
    const left = Math.max(0, blocks.goodCount(unit) - neededCount);
    if (atFirst > 0) availableShare = Math.min(availableShare, left / atFirst);
  }
  const wear = blocks.wearSummary();
  return {
    ...wear,
    isReadOnly: isWornOut(blocks, geometry),
    badBlockCounts,
    spareBlockCount,
    availableSparePercent: Math.floor(100 * availableShare),
    percentUsed: ratedCycles === undefined ? 0 : Math.floor((100 * wear.eraseCountMean) / ratedCycles),
    ratedCycles,
  };
}
