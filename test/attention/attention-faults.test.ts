import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Attention } from '../../daemon/attention/attention.ts';
import { JOB_MAGIC } from '../../daemon/attention/job-layout.ts';
import type { DriveError } from '../../daemon/base/errors.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { assertOutput, attendAndCheck, plainOptions, prepare } from './attend-case.ts';
import { DoubleDrive, type DoubleSequence, openAttention } from './double-drive.ts';
import { Gate } from './gate.ts';
import { kernelSets } from './kernel-sets.ts';

/** Chunks of 128 tokens. */
const shape: SequenceShape = {
  layerCount: 1,
  kvHeadCount: 2,
  headDimK: 16,
  headDimV: 16,
  elementTypeK: 'f16',
  elementTypeV: 'f16',
  groupTokens: 2,
};
const rejectsWith = (code: string, result?: number) => (error: { code?: string; result?: number }) => {
  assert.equal(error.code, code);
  if (result !== undefined) assert.equal(error.result, result);
  return true;
};

for (const set of kernelSets) {
  describe(`broken media, ${set.title} kernels`, { skip: set.skip }, () => {
    let drive: DoubleDrive;
    let broken: DoubleSequence;
    let whole: DoubleSequence;

    before(() => {
      drive = new DoubleDrive({ ...set, kernels: set.name, pageSizeBytes: 4096, pageCount: 2000, seed: 7 });
      broken = drive.addSequence(shape, [400]);
      whole = drive.addSequence(shape, [400]);
    });
    after(() => drive.close());

    for (const workerCount of set.workerCounts.filter((count) => count !== 1)) {
      test(`a flipped bit fails its command with the page, and no other; ${workerCount} workers`, async () => {
        drive.verified.clear();
        const engine = await openAttention(drive, { workerCount });
        const page = drive.pageOf(broken, 0, 1, 1, 150);
        drive.flipBit(page, 8 * 17 + 3);
        const bad = prepare(broken, plainOptions, {}, drive.tools);
        const good = prepare(whole, plainOptions, {}, drive.tools);
        const failed = assert.rejects(
          engine.attend(plainOptions, [good.target, bad.target]),
          rejectsWith('unrecoveredRead', page),
        );
        const good2 = prepare(whole, plainOptions, {}, drive.tools);
        await engine.attend(plainOptions, [good2.target]);
        assertOutput(good2, drive);
        await failed;
        assert.ok(drive.unrecoveredCount > 0, 'the page was counted');
        drive.assertReleased();
        assert.equal(drive.verified.has(page), false);
        // Tokens before it are still there.
        await attendAndCheck(engine, broken, {}, { tokenEnd: 300 }, drive.tools);
        await assert.rejects(engine.attend(plainOptions, [bad.target]), rejectsWith('unrecoveredRead', page));
        drive.flipBit(page, 8 * 17 + 3);
        await engine.attend(plainOptions, [bad.target]);
        assertOutput(bad, drive);
        await engine.close();
        drive.assertReleased();
      });

      test(`a die that does not answer is told with whose page it is; ${workerCount} workers`, async () => {
        drive.verified.clear();
        const engine = await openAttention(drive, { workerCount, frameCacheBytes: 8 * 2 ** 20 });
        await attendAndCheck(engine, broken, {}, {}, drive.tools);
        const page = drive.pageOf(broken, 0, 1, 0, 77);
        const { target } = prepare(broken, plainOptions, { tokenStart: 150 }, drive.tools);
        drive.silent.add(page);
        await assert.rejects(engine.attend(plainOptions, [target]), (error: DriveError) => {
          assert.match(error.message, /cannot be read; it held group 77 of K, head 1, layer 0, sequence 1$/);
          return rejectsWith('unrecoveredRead', page)(error);
        });
        drive.silent.clear();
        await engine.attend(plainOptions, [target]);
        await engine.close();
        drive.assertReleased();
      });

      test(`a bit that flips after its page was checked is found or not seen; ${workerCount} workers`, async () => {
        drive.verified.clear();
        const engine = await openAttention(drive, { workerCount, verify: 'always' });
        for (let i = 0; i < 2; i++) await attendAndCheck(engine, broken, {}, {}, drive.tools);
        const page = drive.pageOf(broken, 0, 1, 1, 150);
        drive.flipBit(page, 8 * 17 + 3);
        const prepared = prepare(broken, plainOptions, {}, drive.tools);
        const attended = engine.attend(plainOptions, [prepared.target]);
        // Kernels that map the media see the cell; the others may still hold a copy from before.
        const isFound = await attended.then(() => false, rejectsWith('unrecoveredRead', page));
        if (drive.isInPlace) assert.ok(isFound, 'the flipped bit was found');
        else if (!isFound) assertOutput(prepared, drive);
        drive.flipBit(page, 8 * 17 + 3);
        await attendAndCheck(engine, broken, {}, {}, drive.tools);
        await engine.close();
        drive.assertReleased();
      });

      test(`a page that was checked is not looked at again on first-use; ${workerCount} workers`, async () => {
        drive.verified.clear();
        const engine = await openAttention(drive, { workerCount, frameCacheBytes: 8 * 2 ** 20 });
        await attendAndCheck(engine, broken, {}, {}, drive.tools);
        const page = drive.pageOf(broken, 0, 1, 1, 150);
        drive.flipBit(page, 8 * 17 + 3);
        const prepared = prepare(broken, plainOptions, {}, drive.tools);
        await engine.attend(plainOptions, [prepared.target]);
        // Who changes cells clears the bit: mapped ones are then looked at, a copy in the frame cache needs no look.
        drive.verified.delete(page);
        const attended = engine.attend(plainOptions, [prepared.target]);
        if (drive.isInPlace) await assert.rejects(attended, rejectsWith('unrecoveredRead', page));
        else await attended.then(() => assertOutput(prepared, drive));
        assert.ok(!drive.verified.has(page), 'nobody has seen these cells right');
        drive.flipBit(page, 8 * 17 + 3);
        await engine.close();
        drive.assertReleased();
      });
    }
  });
}

describe('life of the engine', () => {
  let drive: DoubleDrive;
  let sequence: DoubleSequence;
  before(() => {
    drive = new DoubleDrive({ kernels: 'reference', pageSizeBytes: 4096, pageCount: 2000, seed: 8 });
    sequence = drive.addSequence(shape, [400]);
  });
  after(() => drive.close());

  test('pages stay pinned and the view held while a worker is at a job, and no longer', async () => {
    const gate = new Gate();
    const engine = await openAttention(drive, { workerCount: 1, inlineBytesMax: 0, gate: gate.memory });
    gate.close();
    const prepared = prepare(sequence, plainOptions, {}, drive.tools);
    const done = engine.attend(plainOptions, [prepared.target]);
    await gate.arrivals(1);
    assert.equal(drive.pins.size, 2 * 2 * 200);
    assert.equal(drive.viewsHeld, 1);
    assert.equal(engine.snapshot().commandsActive, 1);
    gate.open();
    await done;
    assertOutput(prepared, drive);
    drive.assertReleased();
    await engine.close();
  });

  test('a short command does not wait for the whole of a long one', async () => {
    const gate = new Gate();
    const engine = await openAttention(drive, { workerCount: 1, inlineBytesMax: 0, gate: gate.memory });
    gate.close();
    const long = prepare(sequence, plainOptions, { queryTokenCount: 400, queryPosition: 0 }, drive.tools);
    const short = prepare(sequence, plainOptions, {}, drive.tools);
    const order: string[] = [];
    const done = [
      engine.attend(plainOptions, [long.target]).then(() => order.push('long')),
      engine.attend(plainOptions, [short.target]).then(() => order.push('short')),
    ];
    gate.open();
    await Promise.all(done);
    assert.deepEqual(order, ['short', 'long']);
    assertOutput(short, drive);
    assertOutput(long, drive);
    await engine.close();
  });

  test('closing fails what runs, releases everything, and takes nothing more', async () => {
    const engine = await openAttention(drive, { workerCount: 2, inlineBytesMax: 0 });
    const long = prepare(sequence, plainOptions, { queryTokenCount: 400, queryPosition: 0 }, drive.tools);
    const running = Array.from({ length: 5 }, () =>
      assert.rejects(engine.attend(plainOptions, [long.target]), rejectsWith('namespaceNotReady')),
    );
    const freeBytes = drive.arena.freeBytes;
    await engine.close();
    await Promise.all(running);
    drive.assertReleased();
    assert.ok(drive.arena.freeBytes > freeBytes, 'frames and scratch went back');
    await assert.rejects(engine.attend(plainOptions, [long.target]), rejectsWith('namespaceNotReady'));
    await engine.close();
  });

  test('a worker that dies fails every command, and the drive hears of it', async () => {
    const gate = new Gate();
    let fatal: Error | undefined;
    const engine = await openAttention(
      drive,
      { workerCount: 2, inlineBytesMax: 0, frameCacheBytes: 4 * 2 ** 20, gate: gate.memory },
      (cause) => {
        fatal = cause;
      },
    );
    gate.close();
    const prepared = prepare(sequence, plainOptions, { queryTokenCount: 400, queryPosition: 0 }, drive.tools);
    const failed = assert.rejects(engine.attend(plainOptions, [prepared.target]), rejectsWith('internal'));
    await gate.arrivals(2);
    // Whatever the workers are about to run is no job any more.
    const words = new Uint32Array(drive.arena.buffer);
    for (let at = 0; at < words.length; at += 16) if (words[at] === JOB_MAGIC) words[at] = 0;
    gate.open();
    await failed;
    assert.match(String(fatal?.message), /there is a job at/);
    drive.assertReleased();
    await assert.rejects(engine.attend(plainOptions, [prepared.target]), rejectsWith('internal'));
    await engine.close();
  });

  test('an arena too full for a command refuses it and loses nothing', async () => {
    const engine = await openAttention(drive, { workerCount: 1, inlineBytesMax: 0 });
    const prepared = prepare(sequence, plainOptions, {}, drive.tools);
    const taken: number[] = [];
    for (let size = 2 ** 20; size >= 64; size /= 2) {
      try {
        for (;;) taken.push(drive.arena.allocate(size));
      } catch {
        // Full for this size.
      }
    }
    await assert.rejects(engine.attend(plainOptions, [prepared.target]), rejectsWith('bufferFull'));
    drive.assertReleased();
    for (const offset of taken) drive.arena.free(offset);
    await engine.attend(plainOptions, [prepared.target]);
    assertOutput(prepared, drive);
    await engine.close();
  });

  test('little scratch: commands wait for each other and all end', async () => {
    const gate = new Gate();
    const engine = await openAttention(drive, {
      workerCount: 2,
      inlineBytesMax: 0,
      scratchBytesMax: 1,
      frameCacheBytes: 8 * 2 ** 20,
      gate: gate.memory,
    });
    const prepared = Array.from({ length: 12 }, (_, i) =>
      prepare(sequence, plainOptions, { queryTokenCount: 1 + 20 * (i % 3), queryPosition: 100 + i }, drive.tools),
    );
    gate.close();
    const first = engine.attend(plainOptions, [prepared[0]!.target]);
    const { scratchBytes, jobsOut } = engine.snapshot();
    assert.ok(scratchBytes > 1, 'one unit always has room');
    const done = prepared.map((one) => engine.attend(plainOptions, [one.target, one.target]));
    assert.equal(engine.snapshot().scratchBytes, scratchBytes, 'no second one has');
    assert.equal(engine.snapshot().jobsOut, jobsOut);
    gate.open();
    await Promise.all([first, ...done]);
    for (const one of prepared) assertOutput(one, drive);
    assert.equal(engine.snapshot().scratchBytes, 0);
    await engine.close();
    drive.assertReleased();
  });

  // A wake-up that is lost shows as a command that never ends.
  test('thousands of short commands, some with targets that see nothing', { timeout: 20_000 }, async () => {
    const engine = await openAttention(drive, { workerCount: 2, inlineBytesMax: 0 });
    const seeing = prepare(sequence, plainOptions, { tokenStart: 390 }, drive.tools);
    const blind = prepare(sequence, plainOptions, { tokenStart: 400 }, drive.tools);
    const patterns = [[seeing], [seeing, blind], [blind, seeing], [blind], [blind, seeing, blind]];
    let next = 0;
    const client = async (): Promise<void> => {
      while (next < 3000) {
        const pattern = patterns[next++ % patterns.length]!;
        await engine.attend(
          plainOptions,
          pattern.map((one) => one.target),
        );
      }
    };
    await Promise.all(Array.from({ length: 7 }, client));
    assertOutput(seeing, drive);
    assertOutput(blind, drive);
    assert.equal(engine.snapshot().commandsCompleted, 3000);
    await engine.close();
  });

  test('small commands on resident checked pages run on the event loop', async () => {
    const engine: Attention = await openAttention(drive, { workerCount: 1 });
    const request = { tokenStart: 350 };
    await attendAndCheck(engine, sequence, {}, request, drive.tools);
    const first = engine.snapshot();
    await attendAndCheck(engine, sequence, {}, request, drive.tools);
    const second = engine.snapshot();
    assert.equal(first.commandsInline, 0, 'the first one loads pages, in a worker');
    assert.equal(second.commandsInline, 1);
    assert.deepEqual(second.workerJobs, first.workerJobs);
    await engine.close();
  });
});
