import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { type Attention, createAttention } from '../../daemon/attention/attention.ts';
import { attendAndCheck } from './attend-case.ts';
import { DoubleDrive } from './double-drive.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';

const shape: SequenceShape = {
  layerCount: 2, kvHeadCount: 2, headDimK: 32, headDimV: 24, elementTypeK: 'f16', elementTypeV: 'bf16', groupTokens: 16,
};

async function open(workerCount: number): Promise<{ drive: DoubleDrive; attention: Attention }> {
  const drive = new DoubleDrive({ kernels: 'reference', pageSizeBytes: 4096, pageCount: 2000, seed: 1 });
  const attention = await createAttention(
    { workerCount, frameCacheBytes: 0, media: drive.media },
    { ...drive, arena: drive.arena, kv: drive.kv, pages: drive.pages, kernels: drive.kernels, clock: systemClock, logger: silentLogger,
      onFatal: (error) => assert.fail(error) },
  );
  return { drive, attention };
}

for (const workerCount of [0, 1, 2]) {
  describe(`${workerCount} workers`, async () => {
    const { drive, attention } = await open(workerCount);
    after(async () => {
      await attention.close();
      drive.assertReleased();
      drive.close();
    });
    const sequence = drive.addSequence(shape, [100, 1500]);

    test('one token, grouped query heads', async () => {
      const counts = await attendAndCheck(attention, sequence, {}, { queryHeadsPerKvHead: 4 }, drive);
      assert.deepEqual(counts, { flashTokenCount: 96, bufferedTokenCount: 4, pageCount: 24 });
      await attendAndCheck(attention, sequence, { causal: true }, { layer: 1, queryHeadsPerKvHead: 4, queryTokenCount: 40 }, drive);
    });
  });
}
