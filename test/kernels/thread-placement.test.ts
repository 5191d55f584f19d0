import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { threadPlacement } from '../../daemon/kernels/native/thread-placement.ts';

const placement = threadPlacement();
const skip =
  placement === undefined || process.platform !== 'linux'
    ? 'SKIPPED: needs the native addon on Linux'
    : availableParallelism() < 2 && 'SKIPPED: needs two CPUs';

const allowedOf = (thread: number): string =>
  /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync(`/proc/self/task/${thread}/status`, 'utf8'))![1]!;

test('a thread keeps off the CPUs it is told, as far as others are left', { skip }, async () => {
  const { threadId, currentCpu, keepOff } = placement!;
  const worker = new Worker(new URL('./placed-thread.js', import.meta.url));
  try {
    const [thread] = (await once(worker, 'message')) as [number];
    assert.notEqual(thread, threadId());
    const before = allowedOf(thread);
    const cpus = Int32Array.from({ length: 1024 }, (_, cpu) => cpu);
    const here = currentCpu();
    keepOff(thread, Int32Array.of(here), 1);
    assert.notEqual(allowedOf(thread), before);
    assert.ok(!allowedOf(thread).split(/[,-]/).includes(String(here)), `${here} is not in ${allowedOf(thread)}`);
    keepOff(thread, Int32Array.of(-1, 5000), 2);
    assert.equal(allowedOf(thread), before, 'there are no such CPUs');
    keepOff(thread, cpus, 1024);
    assert.match(allowedOf(thread), /^\d+$/, 'one is left');
    keepOff(thread, cpus, 0);
    assert.equal(allowedOf(thread), before);
    assert.throws(() => keepOff(thread, cpus, 1025), /keepThreadOff/);
  } finally {
    await worker.terminate();
  }
});
