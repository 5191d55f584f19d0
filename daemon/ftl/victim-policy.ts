import { assert } from '../base/assert.ts';
import type { Random } from '../base/random.ts';

/** What is known of superblocks, by number. */
export interface SuperblockStatistics {
  readonly slotsPerSuperblock: number;
  readonly validSlotCount: ArrayLike<number>;
  /** Operation number at which each became full. */
  readonly closedAt: ArrayLike<number>;
}

export interface VictimContext {
  /** Numbers of the superblocks to choose from, at least one. All have valid slots, and others. */
  readonly candidates: readonly number[];
  readonly statistics: SuperblockStatistics;
  /** Operation number now. */
  readonly operation: number;
  readonly random: Random;
}

/** Chooses the superblock to empty. */
export type VictimPolicy = (context: VictimContext) => number;

export const victimPolicyNames = ['greedy', 'cost-benefit', 'd-choices', 'fifo'] as const;
export type VictimPolicyName = (typeof victimPolicyNames)[number];

export interface VictimPolicyOptions {
  readonly policy: VictimPolicyName;
  /** d-choices: superblocks drawn. */
  readonly choiceCount: number;
  /** fifo: superblocks looked at. */
  readonly windowSuperblocks: number;
}

/** The one that scores highest; of equal ones, the one that became full first. */
function best(
  { candidates, statistics: { closedAt } }: VictimContext,
  scoreOf: (superblock: number) => number,
): number {
  let chosen = candidates[0]!;
  let score = scoreOf(chosen);
  for (let i = 1; i < candidates.length; i++) {
    const candidate = candidates[i]!;
    const other = scoreOf(candidate);
    if (other < score || (other === score && closedAt[candidate]! >= closedAt[chosen]!)) continue;
    chosen = candidate;
    score = other;
  }
  return chosen;
}

/** Fewest valid slots. */
const greedy: VictimPolicy = (context) => {
  const { validSlotCount } = context.statistics;
  return best(context, (superblock) => -validSlotCount[superblock]!);
};

/**
 * Most benefit for its cost: age * (1 - u) / 2u, u the valid share, age the operations since it became full.
 * Kawaguchi, Nishioka, Motoda: A flash-memory based file system, USENIX 1995; after Rosenblum and Ousterhout's
 * log-structured file system.
 */
const costBenefit: VictimPolicy = (context) => {
  const { operation } = context;
  const { validSlotCount, slotsPerSuperblock, closedAt } = context.statistics;
  return best(context, (superblock) => {
    const valid = validSlotCount[superblock]!;
    return ((operation - closedAt[superblock]! + 1) * (slotsPerSuperblock - valid)) / (2 * valid);
  });
};

/**
 * The best of d drawn at random: nearly greedy, and needs no order of all of them. Van Houdt: A mean field model for a
 * class of garbage collection algorithms in flash-based solid state drives, SIGMETRICS 2013.
 */
const dChoices =
  (choiceCount: number): VictimPolicy =>
  (context) => {
    const { candidates, random } = context;
    const drawn = Array.from({ length: choiceCount }, () => candidates[random.nextUint32() % candidates.length]!);
    return greedy({ ...context, candidates: drawn });
  };

/**
 * The best of the w that have been full longest; w = 1 is first in, first out. Hu, Eleftheriou, Haas, Iliadis, Pletka:
 * Write amplification analysis in flash-based solid state drives, SYSTOR 2009 (windowed greedy).
 */
const fifo =
  (windowSuperblocks: number): VictimPolicy =>
  (context) => {
    const { closedAt } = context.statistics;
    const oldest: number[] = [];
    for (const candidate of context.candidates) {
      const isFull = oldest.length === windowSuperblocks;
      if (isFull && closedAt[candidate]! >= closedAt[oldest.at(-1)!]!) continue;
      if (isFull) oldest.pop();
      let place = oldest.length;
      while (place > 0 && closedAt[oldest[place - 1]!]! > closedAt[candidate]!) place--;
      oldest.splice(place, 0, candidate);
    }
    return greedy({ ...context, candidates: oldest });
  };

export function victimPolicy({ policy, choiceCount, windowSuperblocks }: VictimPolicyOptions): VictimPolicy {
  assert(choiceCount >= 1 && windowSuperblocks >= 1, 'a policy looks at one superblock at least');
  const policies: Record<VictimPolicyName, VictimPolicy> = {
    greedy,
    'cost-benefit': costBenefit,
    'd-choices': dChoices(choiceCount),
    fifo: fifo(windowSuperblocks),
  };
  return policies[policy];
}
