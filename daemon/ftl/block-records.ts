import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import type { MetaReader } from '../meta/contract.ts';
import type { NandArray } from '../nand/array.ts';
import {
  type BadBlock,
  type BadBlockReason,
  badBlockReasons,
  type BlockTableState,
  type ReplacedBlock,
} from '../nand/block-table.ts';
import type { InnerParticipant } from './checkpoint.ts';
import type { CheckpointSink } from './contract.ts';

const namespace = metaNamespaces.flashBlocks;

/**
 * The table of bad blocks in the metadata transaction. There is no record of it in the staging log: a crash that makes
 * the drive forget a failure leaves it with a block that fails again, where it is found again.
 */
export class BlockRecords implements InnerParticipant {
  readonly #array: NandArray;
  readonly #logger: Logger;
  #isNew = false;

  constructor(array: NandArray, logger: Logger) {
    this.#array = array;
    this.#logger = logger;
  }

  checkpoint(sink: CheckpointSink): void {
    const { blocks } = this.#array;
    const { unitCount, blocksPerUnit } = blocks;
    const { bad, replaced, retired } = blocks.takeChanges();
    if (this.#isNew) {
      sink.put(namespace, ['table'], { unitCount, blocksPerUnit });
      if (bad.length > 0) this.#logger.info({ count: bad.length }, 'erase blocks that the maker has marked bad');
    }
    for (const { unit, block, reason, eraseCount } of bad) {
      sink.put(namespace, ['bad', unit, block], { reason, eraseCount });
      if (!this.#isNew) this.#logger.warn({ unit, block, reason, eraseCount }, 'an erase block is bad');
    }
    for (const { superblock, unit, block, eraseCountOffset } of replaced) {
      sink.put(namespace, ['replaced', superblock, unit], { block, eraseCountOffset });
    }
    for (const superblock of retired) {
      sink.put(namespace, ['retired', superblock], {});
      this.#logger.warn({ superblock }, 'a superblock is given up: a unit has no erase block left for it');
    }
    this.#isNew = false;
  }

  /** The last transaction's table; undefined if the drive was never started. DriveError mediaFormat. */
  read(meta: MetaReader): BlockTableState | undefined {
    const { unitCount, blocksPerUnit } = this.#array.blocks;
    const table = meta.get(namespace, ['table']) as { unitCount?: number; blocksPerUnit?: number } | undefined;
    if (table === undefined) return undefined;
    if (table.unitCount !== unitCount || table.blocksPerUnit !== blocksPerUnit) {
      const found = `${table.unitCount} units of ${table.blocksPerUnit} erase blocks`;
      throw wrong(`a table of ${found}; the drive has ${unitCount} of ${blocksPerUnit}`);
    }
    const state = { bad: [] as BadBlock[], replaced: [] as ReplacedBlock[], retired: [] as number[] };
    for (const { key, value } of meta.range(namespace)) {
      const [kind, first, second] = key;
      const fields = value as Record<string, unknown>;
      if (kind === 'bad') state.bad.push(this.#badBlock(first, second, fields));
      else if (kind === 'replaced') state.replaced.push(this.#replacedBlock(first, second, fields));
      else if (kind === 'retired') state.retired.push(this.#superblock(first));
      else if (kind !== 'table') throw wrong(`record ${key.join(' ')}`);
    }
    return state;
  }

  /** Of a drive that opens, once its superblocks' erase counts are known. A new one takes over the maker's marks. */
  restore(state: BlockTableState | undefined): void {
    this.#isNew = state === undefined;
    if (state === undefined) this.#array.markFactoryBad();
    else this.#array.blocks.restore(state);
  }

  #badBlock(unit: unknown, block: unknown, { reason, eraseCount }: Record<string, unknown>): BadBlock {
    if (!badBlockReasons.includes(reason as BadBlockReason))
      throw wrong(`a bad block for the reason ${String(reason)}`);
    return {
      unit: this.#unit(unit),
      block: this.#block(block),
      reason: reason as BadBlockReason,
      eraseCount: within(eraseCount, 'erase count', 0, Number.MAX_SAFE_INTEGER),
    };
  }

  #replacedBlock(superblock: unknown, unit: unknown, fields: Record<string, unknown>): ReplacedBlock {
    return {
      superblock: this.#superblock(superblock),
      unit: this.#unit(unit),
      block: this.#block(fields['block']),
      eraseCountOffset: within(fields['eraseCountOffset'], 'erase count', -(2 ** 32), 2 ** 32),
    };
  }

  #unit(value: unknown): number {
    return within(value, 'unit', 0, this.#array.blocks.unitCount - 1);
  }

  #block(value: unknown): number {
    return within(value, 'erase block', 0, this.#array.blocks.blocksPerUnit - 1);
  }

  #superblock(value: unknown): number {
    return within(value, 'superblock', 0, this.#array.blocks.superblockCount - 1);
  }
}

const wrong = (what: string): DriveError => new DriveError('mediaFormat', `metadata: bad blocks: ${what}`);

function within(value: unknown, what: string, min: number, max: number): number {
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max) return value as number;
  throw wrong(`${what} ${String(value)}; allowed: ${min} to ${max}`);
}
