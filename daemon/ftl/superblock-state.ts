import { assert } from '../base/assert.ts';

/**
 * ```text
 *  free --open--> open --last page--> full --nothing valid, durably--> free
 *                                      |  ^
 *                         chosen by GC |  | GC gave up (a page could not be read)
 *                                      v  |
 *                                     victim --nothing valid, durably--> free
 * ```
 * `bad` is for blocks that failed; nothing leaves it.
 */
export const superblockStates = ['free', 'open', 'full', 'victim', 'bad'] as const;
export type SuperblockState = (typeof superblockStates)[number];

const transitions: Record<SuperblockState, readonly SuperblockState[]> = {
  free: ['open', 'bad'],
  open: ['full'],
  full: ['victim', 'free', 'bad'],
  victim: ['full', 'free', 'bad'],
  bad: [],
};

export function superblockTransition(from: SuperblockState, to: SuperblockState): SuperblockState {
  assert(transitions[from].includes(to), `superblock cannot go from ${from} to ${to}`);
  return to;
}
