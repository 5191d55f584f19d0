/** Rates of several things over the same memory, measured in turn. */
import { median } from '../cli/quantity.ts';
import type { SetName } from './team-work.ts';
import type { TeamTask, ThreadTeam } from './thread-team.ts';

const MIB = 2 ** 20;
/** One timed run: long enough that to start the threads does not count, and more than caches hold. */
const SAMPLE_BYTES = 64 * MIB;
const PIECE_BYTES = MIB;
/** Two threads that read less than this much faster than one are held up by the memory bus, not by their cores. */
const BUS_BOUND_SPEED_UP = 1.3;
/** A state that the machine was in more rarely is left out. */
const STATE_SHARE_MIN = 0.1;

/** Something that works through `items` in a circle. */
export interface Contestant {
  readonly name: string;
  readonly task: Omit<TeamTask, 'items'>;
  readonly threadCount: number;
  readonly items: readonly number[];
  readonly itemBytes: number;
}

/** GB/s of each contestant, by its name. */
export type Round = ReadonlyMap<string, number>;

/** Runs all in turn; the first round warms up and does not count. */
export function contest(team: ThreadTeam, contestants: readonly Contestant[], roundCount: number): Round[] {
  const rounds: Round[] = [];
  for (let round = 0; round <= roundCount; round++) {
    const rates = new Map<string, number>();
    contestants.forEach((contestant, turn) => {
      rates.set(contestant.name, sampleRate(team, contestant, round * contestants.length + turn));
    });
    if (round > 0) rounds.push(rates);
  }
  return rounds;
}

/**
 * GB/s of one timed run. Runs with other turns work on other items: nobody works on what the one before has left in the
 * cache.
 */
export function sampleRate(team: ThreadTeam, contestant: Contestant, turn: number): number {
  const { items, itemBytes, task, threadCount } = contestant;
  const count = Math.min(items.length, Math.max(1, Math.round(SAMPLE_BYTES / itemBytes)));
  const taken = Array.from({ length: count }, (_, i) => items[(turn * count + i) % items.length]!);
  const milliseconds = team.run({ ...task, items: taken }, threadCount);
  return (count * itemBytes) / milliseconds / 1e6;
}

export const medianRate = (rounds: readonly Round[], name: string): number =>
  median(rounds.map((rates) => rates.get(name) ?? Number.NaN));

/** Reads of [offset, offset + sizeBytes) in pieces. */
export function readContestant(
  set: SetName,
  threadCount: number,
  range: { readonly offset: number; readonly sizeBytes: number; readonly media: boolean },
): Contestant {
  const count = Math.floor(range.sizeBytes / PIECE_BYTES);
  return {
    name: `read by ${set}, ${threadCount}`,
    task: { kind: range.media ? 'readMedia' : 'readMemory', set, pieceBytes: PIECE_BYTES },
    threadCount,
    items: Array.from({ length: count }, (_, i) => range.offset + i * PIECE_BYTES),
    itemBytes: PIECE_BYTES,
  };
}

export interface State {
  /** "bus-bound", "not bus-bound"; empty for one thread. */
  readonly name: string;
  readonly rounds: readonly Round[];
}

/**
 * Rounds by the state that the machine was in: a virtual machine's CPUs may share a memory bus at one moment and not at the
 * next, and medians over both would mean nothing.
 */
export function statesOf(rounds: readonly Round[], one: Contestant | undefined, many: Contestant): State[] {
  if (one === undefined) return [{ name: '', rounds }];
  const isBound = (rates: Round): boolean => rates.get(many.name)! < BUS_BOUND_SPEED_UP * rates.get(one.name)!;
  return [
    { name: 'bus-bound', rounds: rounds.filter(isBound) },
    { name: 'not bus-bound', rounds: rounds.filter((rates) => !isBound(rates)) },
  ].filter((state) => state.rounds.length > STATE_SHARE_MIN * rounds.length);
}
