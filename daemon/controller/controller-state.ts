import { assert } from '../base/assert.ts';

/**
 * A controller's life. See the diagram in this room's README.
 *
 * - `disabled`: CC.EN 0. Only Fabrics commands.
 * - `ready`: CC.EN 1, CSTS.RDY 1.
 * - `failed`: enabled with a configuration that the drive can't do; CSTS.CFS 1 until the host disables it.
 * - `shuttingDown`, `shutDown`: CC.SHN set; CSTS.SHST says which. I/O commands are no longer taken.
 * - `ended`: its association is over.
 */
export type ControllerState = 'disabled' | 'ready' | 'failed' | 'shuttingDown' | 'shutDown' | 'ended';

export const controllerTransitions: Readonly<Record<ControllerState, readonly ControllerState[]>> = {
  disabled: ['ready', 'failed', 'shuttingDown', 'ended'],
  ready: ['disabled', 'shuttingDown', 'ended'],
  failed: ['disabled', 'shuttingDown', 'ended'],
  shuttingDown: ['shutDown', 'disabled', 'ended'],
  shutDown: ['disabled', 'ended'],
  ended: [],
};

export function transition(from: ControllerState, to: ControllerState): ControllerState {
  assert(controllerTransitions[from].includes(to), `controller ${from} -> ${to}`);
  return to;
}
