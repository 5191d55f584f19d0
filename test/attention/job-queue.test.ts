import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { createJobQueueMemory, JobQueue, JobQueueWorker, lanes, STOPPED } from '../../daemon/attention/job-queue.ts';
import type { ThreadPlacement } from '../../daemon/kernels/native/thread-placement.ts';

function open(workerCount: number, capacity: number) {
  const shape = { workerCount, capacity };
  const memory = createJobQueueMemory(shape);
  const queue = new JobQueue(shape, memory);
  const workers = Array.from(
    { length: workerCount },
    (_, index) => new JobQueueWorker(shape, memory, { index, spinCount: 4, idleSpinCount: index }),
  );
  const loopEnd = new JobQueueWorker(shape, memory, { index: workerCount, spinCount: 0, idleSpinCount: 0 });
  return { queue, workers, loopEnd };
}

/** Both ends on one thread: nobody sleeps while there is something to take. */
test('every job comes back once, in the order its worker finished it, over many turns of the rings', () => {
  const { queue, workers } = open(2, 4);
  const back: number[] = [];
  let next = 1;
  for (let turn = 0; turn < 1000; turn++) {
    // Up to what both lanes take.
    const pushed = 1 + (turn % 8);
    for (let i = 0; i < pushed; i++) queue.push(next++ * 64 + 0x8000_0000, i % 2 === 0 ? lanes.express : lanes.bulk);
    for (let i = 0; i < pushed; i++) {
      const worker = workers[(turn + i) % 2]!;
      worker.complete(worker.take());
    }
    assert.equal(queue.outCount, pushed, 'out until drained');
    assert.equal(
      queue.drain((job) => back.push((job - 0x8000_0000) / 64)),
      pushed,
    );
    assert.equal(queue.outCount, 0);
  }
  assert.deepEqual(
    back.sort((a, b) => a - b),
    Array.from({ length: next - 1 }, (_, i) => i + 1),
  );
  assert.equal(
    queue.jobCounts().reduce((a, b) => a + b),
    next - 1,
  );
  assert.equal(queue.busyCount(), 0);
});

test('a full queue refuses until its jobs were drained', () => {
  const { queue, workers } = open(1, 1);
  queue.push(64, lanes.express);
  queue.push(128, lanes.bulk);
  assert.throws(() => queue.push(192, lanes.bulk), /room for a job/);
  workers[0]!.complete(workers[0]!.take());
  assert.throws(() => queue.push(192, lanes.express), /room for a job/);
  queue.drain(() => undefined);
  queue.push(192, lanes.express);
});

test('express jobs come first, but bulk jobs are not left for ever', () => {
  const { queue, workers } = open(1, 16);
  for (let i = 0; i < 4; i++) queue.push(64 * (i + 1), lanes.bulk);
  for (let i = 0; i < 14; i++) queue.push(6400 + 64 * i, lanes.express);
  const taken = Array.from({ length: 18 }, () => {
    const job = workers[0]!.take();
    workers[0]!.complete(job);
    return job < 6400 ? 'b' : 'e';
  });
  assert.equal(taken.join(''), 'eeeebeeeebeeeebeeb');
});

test('the event loop is signalled once until it drains, and for few jobs left only while it starves', () => {
  const { queue, workers } = open(1, 4);
  const worker = workers[0]!;
  for (let i = 1; i <= 4; i++) queue.push(i * 64, lanes.bulk);
  assert.equal(worker.isWanted(worker.complete(worker.take())), false, 'not starving');
  queue.setStarving(lanes.bulk, true);
  assert.equal(worker.isWanted(3), false, 'above half');
  assert.equal(worker.isWanted(worker.complete(worker.take())), true, 'two of four left');
  assert.equal(worker.claimSignal(), true);
  assert.equal(worker.claimSignal(), false, 'signalled already');
  queue.drain(() => undefined);
  assert.equal(worker.claimSignal(), true, 'a new one after the drain');
});

test('an event loop that polls is not woken, but sees that it was signalled', () => {
  const { queue, workers } = open(1, 4);
  const worker = workers[0]!;
  queue.startPolling();
  assert.equal(worker.claimSignal(), false);
  assert.equal(queue.isSignalled, true);
  queue.drain(() => undefined);
  assert.equal(queue.isSignalled, false);
  queue.stopPolling();
  assert.equal(worker.claimSignal(), true);
});

test('the event loop takes jobs that it accepts, and hands them back on a ring of its own', () => {
  const { queue, loopEnd } = open(2, 4);
  queue.push(64, lanes.bulk);
  queue.push(128, lanes.express);
  assert.equal(
    loopEnd.tryTake((job) => job === 64),
    64,
    'the other lane is looked at, too',
  );
  loopEnd.complete(64);
  assert.equal(
    loopEnd.tryTake((job) => job === 64),
    undefined,
  );
  assert.equal(queue.hasUntaken, true);
  assert.equal(loopEnd.tryTake(), 128);
  assert.equal(queue.hasUntaken, false);
  loopEnd.complete(128);
  const back: number[] = [];
  queue.drain((job) => back.push(job));
  assert.deepEqual(back, [64, 128]);
  assert.deepEqual([queue.jobCounts(), queue.loopJobCount()], [[0, 0], 2]);
});

test('as many workers are woken as there are jobs, within bounds, and each where nobody computes', async () => {
  const shape = { workerCount: 3, capacity: 8 };
  const memory = createJobQueueMemory(shape);
  const kept: { thread: number; cpus: number[] }[] = [];
  const placement = {
    threadId: () => 0,
    currentCpu: () => 7,
    keepOff: (thread: number, cpus: Int32Array, count: number) =>
      kept.push({ thread, cpus: [...cpus.subarray(0, count)] }),
  };
  const queue = new JobQueue(shape, memory, { awakeMax: 2, placement });
  const threads = Array.from(
    { length: 3 },
    (_, index) => new Worker(new URL('./queue-sleeper.js', import.meta.url), { workerData: { shape, memory, index } }),
  );
  const exits = threads.map((thread) => once(thread, 'exit'));
  const sleepers = async (count: number): Promise<void> => {
    while (queue.sleeperCount !== count) await sleep(1);
  };
  await sleepers(3);
  queue.push(64, lanes.bulk);
  queue.wakeWorkers();
  while (queue.busyCount() !== 1) await sleep(1);
  assert.deepEqual(kept, [{ thread: 100, cpus: [7] }]);
  for (let i = 2; i < 6; i++) queue.push(64 * i, lanes.bulk);
  queue.wakeWorkers();
  while (queue.busyCount() !== 2) await sleep(1);
  assert.deepEqual(kept.slice(1), [{ thread: 101, cpus: [20, 7] }], 'one more: two are awake');
  assert.equal(queue.sleeperCount, 1);
  queue.wakeAll();
  while (queue.busyCount() !== 3) await sleep(1);
  assert.deepEqual(kept.slice(2), [{ thread: 102, cpus: [] }], 'all run: wherever there is a CPU');
  queue.stop();
  await Promise.all(exits);
});

test('a worker that computes where the event loop does goes elsewhere', () => {
  const shape = { workerCount: 2, capacity: 4 };
  const memory = createJobQueueMemory(shape);
  const kept: { thread: number; cpus: number[] }[] = [];
  const placementOf = (thread: number, cpu: number): ThreadPlacement => ({
    threadId: () => thread,
    currentCpu: () => cpu,
    keepOff: (moved, cpus, count) => kept.push({ thread: moved, cpus: [...cpus.subarray(0, count)] }),
  });
  const queue = new JobQueue(shape, memory, { placement: placementOf(1, 7) });
  const patience = { spinCount: 1, idleSpinCount: 1 };
  const apart = new JobQueueWorker(shape, memory, { index: 0, ...patience, placement: placementOf(100, 3) });
  const together = new JobQueueWorker(shape, memory, { index: 1, ...patience, placement: placementOf(101, 7) });
  queue.separate();
  assert.deepEqual(kept, [], 'nobody computes');
  queue.push(64, lanes.bulk);
  queue.push(128, lanes.bulk);
  assert.equal(apart.tryTake(), 64);
  queue.separate();
  assert.deepEqual(kept, [], 'elsewhere');
  assert.equal(together.tryTake(), 128);
  queue.separate();
  assert.deepEqual(kept, [{ thread: 101, cpus: [3, 7, 7] }]);
  together.complete(128);
  queue.separate();
  assert.equal(kept.length, 1, 'it has no job any more');
});

test('stopped workers finish what is there first', () => {
  const { queue, workers } = open(1, 4);
  queue.push(64, lanes.bulk);
  queue.stop();
  assert.equal(workers[0]!.take(), 64);
  assert.equal(workers[0]!.take(), STOPPED);
});
