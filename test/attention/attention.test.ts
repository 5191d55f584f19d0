import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Attention } from '../../daemon/attention/attention.ts';
import type { AttendOptions } from '../../daemon/attention/contract.ts';
import { floatTypeNames } from '../../spec/element-type.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { assertOutput, attendAndCheck, outputOf, plainOptions, prepare, type TargetRequest } from './attend-case.ts';
import { DoubleDrive, type DoubleSequence, openAttention } from './double-drive.ts';
import { Gate } from './gate.ts';
import { kernelSets } from './kernel-sets.ts';
import { createRandom, type Random } from './random.ts';

const shapes: SequenceShape[] = [
  // Chunks of 64 groups: 128 tokens.
  {
    layerCount: 1,
    kvHeadCount: 2,
    headDimK: 16,
    headDimV: 16,
    elementTypeK: 'f16',
    elementTypeV: 'f16',
    groupTokens: 2,
  },
  {
    layerCount: 1,
    kvHeadCount: 1,
    headDimK: 80,
    headDimV: 40,
    elementTypeK: 'f32',
    elementTypeV: 'bf16',
    groupTokens: 4,
  },
  {
    layerCount: 1,
    kvHeadCount: 3,
    headDimK: 9,
    headDimV: 33,
    elementTypeK: 'bf16',
    elementTypeV: 'f32',
    groupTokens: 16,
  },
  {
    layerCount: 1,
    kvHeadCount: 2,
    headDimK: 128,
    headDimV: 72,
    elementTypeK: 'int8',
    elementTypeV: 'int4',
    groupTokens: 7,
  },
  // Groups that fill their pages: rows go on where the next page lies behind.
  {
    layerCount: 1,
    kvHeadCount: 2,
    headDimK: 32,
    headDimV: 64,
    elementTypeK: 'f32',
    elementTypeV: 'f16',
    groupTokens: 32,
  },
];
const lengths = [301, 263, 200, 240, 403];

function randomCase(random: Random, sequence: DoubleSequence): { options: AttendOptions; request: TargetRequest } {
  const length = sequence.lengths[0]!;
  const queryHeadsPerKvHead = random.pick([1, 2, 4, 5]);
  const headCount = queryHeadsPerKvHead * sequence.shape.kvHeadCount;
  const firstQueryHead = random.below(3) === 0 ? random.below(headCount) : 0;
  const queryTokenCount = random.pick([1, 1, 3, 20]);
  const tokenStart = random.below(3) === 0 ? random.below(length + 1) : 0;
  const tokenEnd = random.below(3) === 0 ? tokenStart + random.below(length - tokenStart + 1) : undefined;
  const slidingWindow = random.pick([0, 0, 1, 17, 150]);
  return {
    options: {
      causal: random.below(2) === 0,
      statistics: random.below(2) === 0,
      queryType: random.pick(floatTypeNames),
      outputType: random.pick(floatTypeNames),
      scale: random.pick([0, 0.05, 1]),
      softCap: random.pick([0, 0, 8]),
      slidingWindow,
      sinkCount: random.pick([0, 0, 3, 70]),
    },
    request: {
      queryHeadsPerKvHead,
      firstQueryHead,
      queryTokenCount,
      tokenStart,
      tokenEnd,
      queryHeadCount: 1 + random.below(headCount - firstQueryHead),
      queryPosition: random.below(3) === 0 ? random.below(length + 40) : Math.max(0, length - queryTokenCount),
    },
  };
}

for (const set of kernelSets) {
  describe(`${set.title} kernels`, { skip: set.skip }, () => {
    let drive: DoubleDrive;
    let sequences: DoubleSequence[];
    const engines: Attention[] = [];
    const gate = new Gate();

    before(async () => {
      drive = new DoubleDrive({ ...set, kernels: set.name, pageSizeBytes: 4096, pageCount: 1200, seed: 5 });
      sequences = shapes.map((shape, i) => drive.addSequence(shape, [lengths[i]!]));
      for (const workerCount of set.workerCounts) {
        engines.push(await openAttention(drive, { workerCount, inlineBytesMax: 0, gate: gate.memory }));
      }
      engines.push(await openAttention(drive, { workerCount: 2, inlineBytesMax: 0, loopComputes: true }));
    });

    after(async () => {
      for (const engine of engines) await engine.close();
      drive.assertReleased();
      drive.close();
    });

    test('random commands match the definition, bit for bit with no, one and two workers and the event loop as one', async () => {
      const random = createRandom(11);
      for (let round = 0; round < 30; round++) {
        const cases = sequences.map((sequence) => ({ sequence, ...randomCase(random, sequence) }));
        // One command has one set of options: the first case's.
        const { options } = cases[0]!;
        const prepared = cases.map((one) => prepare(one.sequence, options, one.request, { ...drive.tools, random }));
        const outputs: string[] = [];
        for (const engine of engines) {
          for (const one of prepared)
            drive.arena.bytes.fill(0xa5, one.target.outputOffset, one.target.outputOffset + 8);
          await engine.attend(
            options,
            prepared.map((one) => one.target),
          );
          for (const [i, one] of prepared.entries()) {
            assertOutput(one, drive, `round ${round} target ${i} ${JSON.stringify({ options, ...cases[i]!.request })}`);
          }
          outputs.push(prepared.map((one) => Buffer.from(outputOf(one, drive.arena)).toString('hex')).join());
        }
        for (const output of outputs) assert.equal(output, outputs[0], `round ${round}: with as many workers as any`);
        for (const one of prepared) drive.freePrepared(one);
      }
    });

    test('sixty-four commands at once', async () => {
      const random = createRandom(12);
      const engine = engines[set.workerCounts.length - 1]!;
      gate.close();
      const running = Array.from({ length: 64 }, (_, i) => {
        const sequence = sequences[i % sequences.length]!;
        const { options, request } = randomCase(random, sequence);
        const prepared = prepare(sequence, options, request, { ...drive.tools, random });
        return { prepared, done: engine.attend(options, [prepared.target]) };
      });
      // Some have nothing to see, and are done.
      assert.ok(engine.snapshot().commandsActive > 40, 'they run side by side');
      gate.open();
      await Promise.all(running.map((one) => one.done));
      for (const [i, { prepared }] of running.entries()) {
        assertOutput(prepared, drive, `command ${i}`);
        drive.freePrepared(prepared);
      }
      assert.equal(engine.snapshot().commandsActive, 0);
      assert.equal(engine.snapshot().scratchBytes, 0);
    });
  });
}

describe('counts and bounds', () => {
  let drive: DoubleDrive;
  let engine: Attention;
  let sequence: DoubleSequence;

  before(async () => {
    drive = new DoubleDrive({ kernels: 'reference', pageSizeBytes: 4096, pageCount: 1200, seed: 6 });
    engine = await openAttention(drive, { workerCount: 0 });
    sequence = drive.addSequence(shapes[0]!, [301]);
  });
  after(async () => {
    await engine.close();
    drive.assertReleased();
    drive.close();
  });

  test('tokens are counted once by where they lie, pages once per head and part', async () => {
    const readsBefore = drive.readsCounted;
    assert.deepEqual(await attendAndCheck(engine, sequence, {}, { queryHeadsPerKvHead: 4 }, drive.tools), {
      flashTokenCount: 300,
      bufferedTokenCount: 1,
      pageCount: 600,
    });
    assert.equal(drive.readsCounted - readsBefore, 600);
    assert.deepEqual(
      await attendAndCheck(engine, sequence, {}, { queryHeadsPerKvHead: 4, queryHeadCount: 1 }, drive.tools),
      { flashTokenCount: 300, bufferedTokenCount: 1, pageCount: 300 },
      'one query head needs one KV head',
    );
  });

  test('a sliding window walks only its own pages and those of the sinks', async () => {
    const counts = await attendAndCheck(
      engine,
      sequence,
      { causal: true, slidingWindow: 10, sinkCount: 4 },
      { queryTokenCount: 2 },
      drive.tools,
    );
    // Positions 299 and 300 see 290 to 300; the sinks are 0 to 3.
    assert.deepEqual(counts, { flashTokenCount: 14, bufferedTokenCount: 1, pageCount: (2 + 5) * 2 * 2 });
  });

  test('nobody sees anything: zeros and minus infinity, no page walked', async () => {
    for (const request of [
      { tokenStart: 7, tokenEnd: 7 },
      { tokenStart: 301 },
      { tokenStart: 50, queryPosition: 20 },
    ]) {
      const counts = await attendAndCheck(engine, sequence, { causal: true }, request, drive.tools);
      assert.deepEqual(counts, { flashTokenCount: 0, bufferedTokenCount: 0, pageCount: 0 });
    }
  });

  test('a wrong target is refused with its index before anything runs', async () => {
    const refusals: [string, TargetRequest & { sequenceId?: bigint }][] = [
      ['unknownSequence', { sequenceId: 99n }],
      ['layerRange', { layer: 1 }],
      ['headRange', { queryHeadsPerKvHead: 0, queryHeadCount: 1 }],
      ['headRange', { queryHeadsPerKvHead: 129, queryHeadCount: 1 }],
      ['headRange', { queryHeadsPerKvHead: 2, firstQueryHead: 1, queryHeadCount: 4 }],
      ['headRange', { queryHeadsPerKvHead: 2, firstQueryHead: 0, queryHeadCount: 0 }],
      ['tokenRange', { tokenEnd: 302 }],
      ['tokenRange', { tokenStart: 302 }],
      ['tokenRange', { tokenStart: 5, tokenEnd: 4 }],
      ['tokenRange', { queryPosition: 2 ** 31 }],
      ['tokenRange', { queryTokenCount: 5000, queryPosition: 0 }],
    ];
    const good = prepare(sequence, plainOptions, {}, drive.tools);
    for (const [code, request] of refusals) {
      const bad = { ...good.target, ...request };
      await assert.rejects(
        engine.attend(plainOptions, [good.target, good.target, bad]),
        (error: { code?: string; result?: number }) => {
          assert.equal(
            error.code,
            code,
            JSON.stringify(request, (_, v) => (typeof v === 'bigint' ? `${v}` : v)),
          );
          assert.equal(error.result, 2);
          return true;
        },
      );
      drive.assertReleased();
    }
    drive.freePrepared(good);
  });

  test('no targets: nothing to do', async () => {
    assert.deepEqual(await engine.attend(plainOptions, []), {
      flashTokenCount: 0,
      bufferedTokenCount: 0,
      pageCount: 0,
    });
  });
});
