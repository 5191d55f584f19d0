import assert from 'node:assert/strict';
import { test } from 'node:test';
import { superblockStates, superblockTransition } from '../../daemon/ftl/superblock-state.ts';

test('every pair of superblock states is either a transition or an invariant failure', () => {
  const allowed = superblockStates.flatMap((from) =>
    superblockStates
      .filter((to) => {
        try {
          return superblockTransition(from, to) === to;
        } catch (error) {
          assert.match(String(error), new RegExp(`superblock cannot go from ${from} to ${to}`));
          return false;
        }
      })
      .map((to) => `${from} -> ${to}`),
  );
  assert.deepEqual(allowed, [
    'free -> open',
    'free -> bad',
    'open -> full',
    'full -> free',
    'full -> victim',
    'victim -> free',
    'victim -> full',
  ]);
});
