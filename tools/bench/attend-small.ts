/**
 * What a small ATTN costs: one sequence of 256 tokens, one at a time, against 64 bytes there and back between two processes
 * that do nothing else.
 */
import { DriveClient, type PreparedAttend } from '../../client/index.ts';
import { Progress } from '../cli/output.ts';
import { BareLoad, startBarePeer } from './bare-peer.ts';
import { type Bench, withBenchDrive } from './bench.ts';
import { prepareQuery, warmUp } from './drive-layers.ts';
import { interleave } from './measure.ts';
import { compare } from './report.ts';
import { type BenchShape, shapeOf } from './shapes.ts';

const TOKENS = 256;
const MESSAGE_BYTES = 64;
const ROUND_COUNT = 400;
/** Of the client that does not sleep while it waits. */
const BUSY_POLL_US = 1000;
const QUICK_ROUND_COUNT = 20;

export const attendSmallBench: Bench = {
  name: 'attend-small',
  summary: 'ATTN over 256 tokens, one at a time, against 64 bytes there and back between bare processes',
  async run(options, output) {
    const progress = new Progress();
    const count = options.quick ? QUICK_ROUND_COUNT : ROUND_COUNT;
    for (const heads of ['32/8', '40/40'] as const) {
      // One sequence of one layer: what is small is asked for again and again, and lies in the cache.
      const shape: BenchShape = shapeOf(heads, TOKENS, 1);
      await withBenchDrive(shape, options, progress, async (bench) => {
        const peer = await startBarePeer('unix');
        const size = { requestBytes: MESSAGE_BYTES, replyBytes: MESSAGE_BYTES, depth: 1 };
        const messages = await BareLoad.connect(peer, size);
        const polling = await DriveClient.connect(bench.drive.address, { busyPollUs: BUSY_POLL_US });
        const request = await prepareQuery(bench.client, bench.sequence, shape);
        const polled = await prepareQuery(polling, bench.sequence, shape);
        const attend = (which: PreparedAttend) => async (): Promise<void> => {
          for (let i = 0; i < count; i++) await which.post();
        };
        try {
          await warmUp(request, shape);
          const measured = await interleave(
            options.rounds,
            [
              { name: 'messages', run: () => messages.run(count) },
              { name: 'sleeping', run: attend(request) },
              { name: 'polling', run: attend(polled) },
            ],
            (round) => progress.update(`${shape.name}: round ${round} of ${options.rounds}`),
          );
          progress.clear();
          const microseconds = (name: string): number => (1000 * measured.get(name)!.medianMs) / count;
          const line = {
            bench: 'attend-small',
            case: `${shape.name}, ${bench.kernels}, ${bench.threadCount} threads`,
            unit: 'us',
            samples: options.rounds,
          };
          const baseline = { name: '64 B there and back', value: microseconds('messages') };
          for (const way of ['sleeping', 'polling'] as const) {
            const metric = `time per ATTN, ${way}`;
            output.line(compare({ ...line, metric, value: microseconds(way) }, baseline, 'attendSmall'));
          }
        } finally {
          request.release();
          polled.release();
          await polling.close();
          messages.close();
          peer.stop();
        }
      });
    }
  },
};
