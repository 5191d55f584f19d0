import { assert } from './base/assert.ts';

/**
 * ```text
 * stopped -> opening -> ready -> stopping -> stopped
 *               |         |          |
 *               +---------+----------+--> failed
 * ```
 */
export const driveStates = ['stopped', 'opening', 'ready', 'stopping', 'failed'] as const;
export type DriveState = (typeof driveStates)[number];

const transitions: Record<DriveState, readonly DriveState[]> = {
  stopped: ['opening'],
  opening: ['ready', 'stopped', 'failed'],
  ready: ['stopping', 'failed'],
  stopping: ['stopped', 'failed'],
  failed: [],
};

/** Asserts that the drive may go from one state to the other, and returns the new one. */
export function driveTransition(from: DriveState, to: DriveState): DriveState {
  assert(transitions[from].includes(to), `drive cannot go from ${from} to ${to}`);
  return to;
}
