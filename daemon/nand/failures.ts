/**
 * Which operations of the dies fail. `superblock` and `ppn` say where the block serves; `block` is the erase block of the
 * unit that is behind it, `cycle` how often that block was erased, an erase that is asked about included.
 */
export interface NandFailures {
  /** Marked bad by the maker: never used. */
  isFactoryBad(unit: number, block: number): boolean;
  /** Asked at every erase of a block. True: the block is bad from now on. */
  eraseFails(superblock: number, unit: number, block: number, cycle: number): boolean;
  /** Asked at every program of a page. True: the page holds nothing, and the block is bad from its next erase on. */
  programFails(ppn: number, block: number, cycle: number): boolean;
  /** Asked at every read of a page. True: the die does not answer this time. */
  readFails(ppn: number): boolean;
  /** False: `readFails` is, of every page, until something changes here. */
  readonly mayFailReads: boolean;
}

/** Dies without a fault. */
export const noFailures: NandFailures = {
  isFactoryBad: () => false,
  eraseFails: () => false,
  programFails: () => false,
  readFails: () => false,
  mayFailReads: false,
};
