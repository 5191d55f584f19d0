/**
 * The scheduler against workers that are slow at every point where a thread may be held up. Everything runs on one thread:
 * workers are stepped in a random order, and the event loop looks only when it was signalled. A signal that is missing
 * shows as commands that never end.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setImmediate as immediate } from 'node:timers/promises';
import { Command } from '../../daemon/attention/command.ts';
import { FrameCache } from '../../daemon/attention/frame-cache.ts';
import { createJobQueueMemory, JobQueue, JobQueueWorker } from '../../daemon/attention/job-queue.ts';
import { JobRunner } from '../../daemon/attention/job-runner.ts';
import { LoopWorker } from '../../daemon/attention/loop-worker.ts';
import { planTargets, releasePlan } from '../../daemon/attention/plan.ts';
import { Scheduler } from '../../daemon/attention/scheduler.ts';
import type { UnitModules } from '../../daemon/attention/unit.ts';
import { type Clock, systemClock } from '../../daemon/base/clock.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { CellReader } from '../../daemon/nand/cell-reader.ts';
import { plainOptions, prepare, type Prepared } from './attend-case.ts';
import { DoubleDrive, type DoubleSequence } from './double-drive.ts';
import { createRandom, type Random } from './random.ts';

const shape: SequenceShape = {
  layerCount: 1,
  kvHeadCount: 2,
  headDimK: 8,
  headDimV: 8,
  elementTypeK: 'f16',
  elementTypeV: 'f16',
  groupTokens: 1,
};

let drive: DoubleDrive;
let sequence: DoubleSequence;
before(() => {
  drive = new DoubleDrive({ kernels: 'reference', pageSizeBytes: 4096, pageCount: 1200, seed: 21 });
  sequence = drive.addSequence(shape, [200]);
});
after(() => drive.close());

/** What worker.ts does, one step at a time. */
function* workerSteps(
  queue: JobQueueWorker,
  runner: JobRunner,
  words: Uint32Array,
  signal: () => void,
): Generator<void, void> {
  for (;;) {
    const job = queue.tryTake();
    yield;
    if (job === undefined) continue;
    const wakeFlag = runner.wakeFlagOf(job);
    runner.run(job);
    yield;
    const isNews = runner.finish(job);
    yield;
    const outstanding = queue.complete(job);
    yield;
    const isWanted = queue.isWanted(outstanding);
    yield;
    const isForced = Atomics.load(words, wakeFlag) !== 0;
    yield;
    if ((isNews || isWanted || isForced) && queue.claimSignal()) signal();
    yield;
  }
}

async function run(random: Random, prepared: readonly Prepared[]): Promise<void> {
  const { arena, kernels, pages, kv } = drive;
  const words = new Uint32Array(arena.buffer);
  const workerCount = 1 + random.below(3);
  const queueShape = { workerCount, capacity: random.pick([2, 4, 8]) };
  const memory = createJobQueueMemory(queueShape);
  const frames = new FrameCache(
    { sizeBytes: random.pick([0, 2 ** 21]), frameSizeBytes: 4096, pageCount: 1200 },
    { arena, pages },
  );
  const runner = new JobRunner({ memory: arena.memory, kernels, reader: new CellReader(drive.media) });
  const interruptRate = random.pick([0, 0, 10, 100]);
  // Workers get on while the event loop is at its own work, too.
  const interrupt = (): void => {
    if (interruptRate === 0 || random.below(interruptRate) > 0) return;
    for (let steps = random.pick([3, 30, 300]); steps > 0; steps--) stepWorker();
  };
  const release = frames.release.bind(frames);
  frames.release = (handle, loaded) => {
    release(handle, loaded);
    interrupt();
  };
  const unitModules: UnitModules = {
    sums: undefined,
    checksAlways: false,
    words,
    floats: new Float32Array(arena.buffer),
    kernels,
    frames,
    pages: {
      ...pages,
      eraseCount: (page) => {
        interrupt();
        return pages.eraseCount(page);
      },
    },
  };
  let endedCount = 0;
  const scheduler = new Scheduler(
    { scratchBytesMax: random.pick([1, 2 ** 20]) },
    {
      arena,
      words,
      kernels: {
        merge: (job) => {
          kernels.merge(job);
          interrupt();
        },
      },
      runner,
      cache: undefined,
      readAhead: undefined,
      unrecovered: (page) => assert.fail(`page ${page}`),
      ended: (command) => {
        assert.equal(command.failure, undefined);
        for (const plan of command.plans) releasePlan(plan);
        endedCount++;
      },
    },
  );
  const queue = new JobQueue(queueShape, memory);
  // The event loop takes jobs, too, in some runs: in turns of its own, of which some come late.
  let loopTurn: (() => void) | undefined;
  let nowNs = 0;
  const clock: Clock = {
    ...systemClock,
    nowNs: () => {
      interrupt();
      nowNs += random.pick([1e3, 1e5]);
      return nowNs;
    },
    poll: (callback) => {
      loopTurn = callback;
      return { cancel: () => undefined };
    },
  };
  const loopEnd = new JobQueueWorker(queueShape, memory, { index: workerCount, spinCount: 0, idleSpinCount: 0 });
  const advance = (): void => scheduler.advance();
  const hasPendingEvents = random.pick([undefined, () => random.below(2) === 0]);
  const loopWorker = new LoopWorker({ queue, worker: loopEnd, runner, clock, advance, hasPendingEvents });
  scheduler.useQueue(queue, random.below(2) === 0 ? loopWorker : undefined);
  let isSignalled = false;
  const workers = Array.from({ length: workerCount }, (_, index) =>
    workerSteps(
      new JobQueueWorker(queueShape, memory, { index, spinCount: 1, idleSpinCount: 1 }),
      runner,
      words,
      () => {
        isSignalled = true;
      },
    ),
  );
  const targets = prepared.map((one) => one.target);
  const blind = targets.find((target) => target.tokenStart === sequence.lengths[0])!;
  const commandCount = 1 + random.below(5);
  let startedCount = 0;
  // A thread that is held up is not stepped for a while.
  let held = -1;
  const stepWorker = (): void => {
    if (random.below(30) === 0) held = random.below(workerCount + 1) - 1;
    const index = random.below(workerCount);
    if (index !== held) workers[index]!.next();
  };
  for (let step = 0; endedCount < commandCount; step++) {
    assert.ok(step < 20_000, `${commandCount - endedCount} of ${commandCount} commands never end`);
    // The scheduler itself lets other events have their turn when jobs come back as fast as it looks.
    if (step % 200 === 199) await immediate();
    if (startedCount < commandCount && random.below(10) === 0) {
      const chosen = Array.from({ length: 1 + random.below(2) }, () => random.pick(targets));
      // A last target that sees nothing is done by the event loop itself.
      if (random.below(2) === 0) chosen.push(blind);
      const plans = planTargets(plainOptions, chosen, { kv, pages });
      scheduler.start(new Command(plainOptions, plans, unitModules, random.pick([0, Number.POSITIVE_INFINITY])));
      startedCount++;
    } else if (isSignalled && random.below(4) === 0) {
      isSignalled = false;
      scheduler.advance();
    } else if (loopTurn !== undefined && random.below(4) === 0) {
      const turn = loopTurn;
      loopTurn = undefined;
      turn();
    } else {
      stepWorker();
    }
  }
  assert.equal(scheduler.activeCount, 0);
  assert.equal(scheduler.scratchBytes, 0);
  assert.equal(frames.snapshot().framesInUse, 0);
  frames.close();
  drive.assertReleased();
}

test('every command ends, whatever the order in which threads get on', async () => {
  const { freeBytes } = drive.arena;
  const requests = [{}, { tokenStart: 150 }, { tokenStart: 200 }, { tokenEnd: 64, queryHeadCount: 1 }];
  const prepared = requests.map((request) => prepare(sequence, plainOptions, request, drive.tools));
  // Among these are orders that found a missing signal, each at one of the three places that ask for one.
  for (let seed = 250; seed < 700; seed++) {
    try {
      await run(createRandom(seed), prepared);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
  for (const one of prepared) drive.freePrepared(one);
  assert.equal(drive.arena.freeBytes, freeBytes);
});
