import { assert } from '../base/assert.ts';

/**
 * Where the authentication of one queue stands. See the diagram in this room's README.
 *
 * - `idle`: nothing is under way; the host may begin with AUTH_Negotiate.
 * - `negotiated`: the host may fetch the challenge.
 * - `challenged`: the host has it, and is to reply.
 * - `verifying`: its reply is being checked.
 * - `verified`: it was right; the host may fetch DH-HMAC-CHAP_Success1.
 * - `provingController`: the host has the controller's response, and is to say whether it is right.
 * - `failed`: the host may fetch AUTH_Failure1; then the connection ends.
 */
export type AuthenticationState =
  | 'idle'
  | 'negotiated'
  | 'challenged'
  | 'verifying'
  | 'verified'
  | 'provingController'
  | 'failed';

export const authenticationTransitions: Readonly<Record<AuthenticationState, readonly AuthenticationState[]>> = {
  idle: ['negotiated', 'failed'],
  negotiated: ['challenged', 'failed'],
  challenged: ['verifying', 'failed'],
  verifying: ['verified', 'failed'],
  verified: ['provingController', 'idle', 'failed'],
  provingController: ['idle', 'failed'],
  failed: [],
};

export function transition(from: AuthenticationState, to: AuthenticationState): AuthenticationState {
  assert(authenticationTransitions[from].includes(to), `authentication ${from} -> ${to}`);
  return to;
}
