import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { assertOutput, attendAndCheck, plainOptions, prepare } from './attend-case.ts';
import { Gate } from './gate.ts';
import { kernelSets } from './kernel-sets.ts';
import { GrownSequence, openStoredDrive, type StoredDrive } from './stored-drive.ts';

const shape: SequenceShape = {
  layerCount: 2,
  kvHeadCount: 2,
  headDimK: 24,
  headDimV: 16,
  elementTypeK: 'f16',
  elementTypeV: 'f32',
  groupTokens: 8,
};

/** Programs more pages than the flash has; on the way blocks keep a few valid ones, which are moved, in the end none. */
async function churn(drive: StoredDrive): Promise<void> {
  const ids: bigint[] = [];
  for (let i = 0; i < 14; i++) {
    const sequence = new GrownSequence(drive, shape, 200);
    await sequence.append(0, 200);
    await drive.store.truncate(sequence.id, 0, 64);
    ids.push(sequence.id);
    await drive.ftl.collectors.kv.collect();
  }
  for (const id of ids) await drive.store.reclaim(id);
}

for (const set of kernelSets) {
  describe(`stored sequences, ${set.title} kernels`, { skip: set.skip }, () => {
    const gate = new Gate();
    let drive: StoredDrive;

    before(async () => {
      drive = await openStoredDrive(set, { workerCount: 2, inlineBytesMax: 0, gate: gate.memory });
    });
    after(() => drive.close());

    test('a sequence that grows by a prefill and then token by token', async () => {
      const sequence = new GrownSequence(drive, shape, 120);
      await attendAndCheck(drive.engine, sequence, {}, { queryHeadsPerKvHead: 3 }, drive, 'empty');
      await sequence.append(0, 75);
      for (let length = 75; length < 100; length++) {
        const counts = await attendAndCheck(
          drive.engine,
          sequence,
          { causal: true, outputType: 'f16' },
          { queryHeadsPerKvHead: 3 },
          drive,
          `${length} tokens`,
        );
        assert.equal(counts.flashTokenCount, length - (length % 8));
        assert.equal(counts.bufferedTokenCount, length % 8);
        await sequence.append(0, 1);
      }
    });

    test('forks share pages and go their own way', async () => {
      const parent = new GrownSequence(drive, shape, 90);
      await parent.append(0, 50);
      await parent.append(1, 61);
      const id = await drive.store.fork(parent.id, 45, { id: 0n, label: '', leaseSeconds: 0, owner: 1n });
      const child = new GrownSequence(drive, shape, 90, { id, of: parent });
      child.lengths.fill(45);
      await child.append(0, 30);
      await drive.store.truncate(parent.id, undefined, 10);
      parent.lengths.fill(10);
      for (const sequence of [parent, child]) {
        for (const layer of [0, 1]) await attendAndCheck(drive.engine, sequence, {}, { layer }, drive);
      }
      await drive.store.reclaim(parent.id);
      await attendAndCheck(drive.engine, child, {}, { queryHeadsPerKvHead: 2 }, drive);
    });

    test('an output is that of the moment of the call, whatever happens while a worker is at it', async () => {
      const sequence = new GrownSequence(drive, shape, 200);
      await sequence.append(0, 77);
      gate.close();
      const prepared = [{}, { tokenStart: 70 }, { queryTokenCount: 5 }].map((request) =>
        prepare(sequence, plainOptions, request, drive),
      );
      const done = drive.engine.attend(
        plainOptions,
        prepared.map((one) => one.target),
      );
      await gate.arrivals(1);
      await sequence.append(0, 30);
      await drive.store.truncate(sequence.id, 0, 60);
      await drive.store.reclaim(sequence.id);
      const next = new GrownSequence(drive, shape, 200);
      await next.append(0, 200);
      gate.open();
      await done;
      for (const one of prepared) assertOutput(one, drive);
      await attendAndCheck(drive.engine, next, {}, {}, drive);
    });

    test('a flipped bit is an unrecovered read of that page, until the bit is back', async () => {
      const sequence = new GrownSequence(drive, shape, 100);
      await sequence.append(0, 96);
      await drive.ftl.durability.flush();
      const view = drive.store.view(sequence.id, 0);
      const page = drive.ftl.kv.pin(view.page(5, 1, 0));
      drive.ftl.kv.unpin(page);
      view.release();
      drive.flipBit(page, 99);
      const prepared = prepare(sequence, plainOptions, {}, drive);
      const isThatPage = (error: { code?: string; result?: number; message: string }): boolean =>
        error.code === 'unrecoveredRead' && error.result === page && /superblock \d+/.test(error.message);
      await assert.rejects(drive.engine.attend(plainOptions, [prepared.target]), isThatPage);
      await attendAndCheck(drive.engine, sequence, {}, { tokenEnd: 40 }, drive, 'the groups before it');
      await attendAndCheck(drive.engine, sequence, {}, { queryHeadCount: 1 }, drive, 'the other head');
      drive.flipBit(page, 99);
      await drive.engine.attend(plainOptions, [prepared.target]);
      assertOutput(prepared, drive);
    });

    test('blocks that a command reads are erased only after it', { timeout: 20_000 }, async () => {
      const { ftl, store, engine } = drive;
      const sequence = new GrownSequence(drive, shape, 160);
      await sequence.append(0, 160);
      const prepared = prepare(sequence, plainOptions, { queryHeadsPerKvHead: 2 }, drive);
      const arrivals = gate.arrivalCount;
      gate.close();
      const done = engine.attend(plainOptions, [prepared.target]);
      await gate.arrivals(arrivals + 1);
      const pinned = ftl.superblocks().filter(({ pinCount }) => pinCount > 0);
      assert.ok(pinned.length > 0, 'the command pins blocks');
      const before = ftl.snapshot().counters;

      await store.truncate(sequence.id, 0, 30);
      await churn(drive);
      await store.reclaim(sequence.id);
      await churn(drive);
      await ftl.durability.flush();
      const during = ftl.snapshot().counters;
      assert.ok(during.gcPagesProgrammed > before.gcPagesProgrammed, 'garbage collection moved pages');
      assert.ok(during.superblocksErased > before.superblocksErased + 50, 'other blocks were erased');
      const now = ftl.superblocks();
      for (const { superblock, eraseCount, pinCount } of pinned) {
        assert.equal(now[superblock]!.eraseCount, eraseCount, `superblock ${superblock} was not erased`);
        assert.equal(now[superblock]!.pinCount, pinCount);
      }

      gate.open();
      await done;
      assertOutput(prepared, drive);
      // Garbage collection pins its victim, one at a time.
      const pinCount = ftl.superblocks().reduce((sum, one) => sum + one.pinCount, 0);
      assert.ok(pinCount <= 1, `${pinCount} pins stay`);
      const isUsedAgain = ({ superblock, eraseCount }: (typeof pinned)[number]): boolean =>
        ftl.superblocks()[superblock]!.eraseCount > eraseCount;
      for (let round = 0; round < 5 && !pinned.every(isUsedAgain); round++) await churn(drive);
      assert.ok(pinned.every(isUsedAgain), 'the blocks are used again');
    });

    test('outputs stay right while blocks are erased and programmed under the cache', async () => {
      const live: GrownSequence[] = [];
      for (let round = 0; round < 12; round++) {
        const sequence = new GrownSequence(drive, shape, 120);
        await sequence.append(0, 120);
        live.push(sequence);
        if (live.length > 3) await drive.store.reclaim(live.shift()!.id);
        if (round % 4 === 3) await churn(drive);
        for (const one of live) await attendAndCheck(drive.engine, one, {}, {}, drive, `round ${round}`);
      }
      for (const one of live) await drive.store.reclaim(one.id);
    });
  });
}
