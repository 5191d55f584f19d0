import { assert } from '../base/assert.ts';

/**
 * ```text
 * forming -> live -> reclaimed
 *    |                  ^
 *    +------------------+   a fork that failed
 * ```
 * `forming`: its id is taken, nobody else sees it. `live`: commands may name it. `reclaimed`: it holds nothing; tasks
 * that still wait in its queue find that it is gone.
 */
export const sequenceStates = ['forming', 'live', 'reclaimed'] as const;
export type SequenceState = (typeof sequenceStates)[number];

export const sequenceTransitions: Record<SequenceState, readonly SequenceState[]> = {
  forming: ['live', 'reclaimed'],
  live: ['reclaimed'],
  reclaimed: [],
};

/** Asserts that a sequence may go from one state to the other, and returns the new one. */
export function sequenceTransition(from: SequenceState, to: SequenceState): SequenceState {
  assert(sequenceTransitions[from].includes(to), `sequence cannot go from ${from} to ${to}`);
  return to;
}
