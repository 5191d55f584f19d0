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

for (const set of kernelSets) {
  describe(`stored sequences, ${set.name} kernels`, { skip: set.skip }, () => {
    const gate = new Gate();
    let drive: StoredDrive;

    before(async () => {
      drive = await openStoredDrive(set.name, { workerCount: 2, inlineBytesMax: 0, gate: gate.memory });
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
  });
}
