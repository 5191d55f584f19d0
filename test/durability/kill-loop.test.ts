import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { killCount, KillLoop } from './kill-loop.ts';

const loop = new KillLoop({ kills: 8, seed: 1 });
after(() => loop.remove());

test('a daemon that is killed at work, while it starts and while it stops keeps what it promised', async (t) => {
  await loop.run();
  const { counts } = loop;
  t.diagnostic(JSON.stringify({ ...counts, startMs: counts.startMs.map(Math.round) }));
  assert.ok(killCount(counts) >= 8);
  // How much that is depends on the machine.
  assert.ok(counts.commands > 0 && counts.flushes > 0, 'clients got something done');
});
