import { assert } from '../base/assert.ts';

/**
 * ```text
 *  free --a unit has no erase block left for it--> bad
 *  free --open--> open --last page--> full --nothing valid, durably--> free
 *                                       |  ^
 *                    chosen to be moved |  | given up: a page could not be read, the disk refused
 *                                       v  |
 *                                     victim --nothing valid, durably--> free
 * ```
 * Nothing leaves `bad`. A block that fails while a superblock is in use changes no state: it is replaced at the next erase,
 * or makes the superblock bad then, when it is free and there is nothing to move.
 */
export const superblockStates = ['free', 'open', 'full', 'victim', 'bad'] as const;
export type SuperblockState = (typeof superblockStates)[number];

const transitions: Record<SuperblockState, readonly SuperblockState[]> = {
  free: ['open', 'bad'],
  open: ['full'],
  full: ['victim', 'free'],
  victim: ['full', 'free'],
  bad: [],
};

export function superblockTransition(from: SuperblockState, to: SuperblockState): SuperblockState {
  assert(transitions[from].includes(to), `superblock cannot go from ${from} to ${to}`);
  return to;
}
