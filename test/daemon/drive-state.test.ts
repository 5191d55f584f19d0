import assert from 'node:assert/strict';
import { test } from 'node:test';
import { driveStates, driveTransition } from '../../daemon/drive-state.ts';

test('every pair of drive states is either a transition or an invariant failure', () => {
  const allowed = driveStates.flatMap((from) =>
    driveStates
      .filter((to) => {
        try {
          return driveTransition(from, to) === to;
        } catch {
          return false;
        }
      })
      .map((to) => `${from} -> ${to}`),
  );
  assert.deepEqual(allowed, [
    'stopped -> opening',
    'opening -> stopped',
    'opening -> ready',
    'opening -> failed',
    'ready -> stopping',
    'ready -> failed',
    'stopping -> stopped',
    'stopping -> failed',
  ]);
});
