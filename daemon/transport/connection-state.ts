import { assert } from '../base/assert.ts';

/**
 * A connection's life. See the diagram in this room's README.
 *
 * - `opening`: accepted; nothing but ICReq is allowed.
 * - `initialized`: ICResp sent; the queue wants Connect first.
 * - `authenticating`: Connect succeeded, and the host has to authenticate before anything else.
 * - `connected`: the queue is part of an association and may be used.
 * - `terminating`: C2HTermReq sent, or the last answer before an orderly end; what still arrives is dropped unread.
 * - `closed`: the socket is gone.
 */
export type ConnectionState = 'opening' | 'initialized' | 'authenticating' | 'connected' | 'terminating' | 'closed';

export const connectionTransitions: Readonly<Record<ConnectionState, readonly ConnectionState[]>> = {
  opening: ['initialized', 'terminating', 'closed'],
  initialized: ['authenticating', 'connected', 'terminating', 'closed'],
  authenticating: ['connected', 'terminating', 'closed'],
  connected: ['terminating', 'closed'],
  terminating: ['closed'],
  closed: [],
};

export function transition(from: ConnectionState, to: ConnectionState): ConnectionState {
  assert(connectionTransitions[from].includes(to), `connection ${from} -> ${to}`);
  return to;
}
