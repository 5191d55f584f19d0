/** Prefill: a layer's keys and values appended through a memory region, against copying the same bytes in memory. */
import type { DriveClient, Sequence } from '../../client/index.ts';
import { Progress } from '../cli/output.ts';
import type { Bench } from './bench.ts';
import { randomHalves } from './drive-layers.ts';
import { interleave } from './measure.ts';
import { compare } from './report.ts';
import { type BenchShape, layerBytes, shapeOf } from './shapes.ts';
import { withSocketDrive } from './socket-drive.ts';

/** Buffers that sources are taken from in turn: more than caches hold. */
const SPAN_BYTES = 256 * 2 ** 20;
const QUICK_SPAN_BYTES = 2 ** 20;
const TOKENS = 4096;
const QUICK_TOKENS = 256;
const BLOCK_CAPACITY_BYTES = 16 * 2 ** 20;
const KV_CAPACITY_BYTES_MIN = 64 * 2 ** 20;

export const appendBench: Bench = {
  name: 'append',
  summary: 'prefill-sized appends through a memory region, against copies in memory',
  async run(options, output) {
    const progress = new Progress();
    for (const heads of ['32/8', '40/40'] as const) {
      const tokenCount = options.quick ? QUICK_TOKENS : TOKENS;
      const shape = shapeOf(heads, tokenCount, 1);
      // Room for what is appended, what was reclaimed just before, and as much again: nothing waits for an erase.
      const kvCapacityBytes = Math.max(KV_CAPACITY_BYTES_MIN, 4 * layerBytes(shape));
      await withSocketDrive(options, { blockCapacityBytes: BLOCK_CAPACITY_BYTES, kvCapacityBytes }, async (drive) => {
        const client = await drive.connect('unix');
        const sources = sourcesFor(shape, options.quick ? QUICK_SPAN_BYTES : SPAN_BYTES);
        const target = new Uint8Array(layerBytes(shape) * 4);
        let sequence: Sequence | undefined;
        const measured = await interleave(
          options.rounds,
          [
            {
              name: 'copy',
              run: async (round) => copy(sources[round % sources.length]!, target, round),
            },
            {
              name: 'append',
              prepare: async () => {
                await sequence?.reclaim();
                await client.kv.flush();
                sequence = await createLike(client, shape);
              },
              run: async (round) => {
                const { keys, values } = sources[round % sources.length]!;
                await sequence!.append(0, 0, keys, values);
              },
            },
          ],
          (round) => progress.update(`${shape.name}: round ${round} of ${options.rounds}`),
        );
        progress.clear();
        const rate = (name: string): number => layerBytes(shape) / measured.get(name)!.medianMs / 1e6;
        output.line(
          compare(
            {
              bench: 'append',
              case: shape.name,
              metric: 'bandwidth',
              value: rate('append'),
              unit: 'GB/s',
              samples: options.rounds,
            },
            { name: 'memory copy', value: rate('copy') },
            'append',
          ),
        );
        await client.close();
      });
    }
  },
};

interface Rows {
  readonly keys: Uint16Array;
  readonly values: Uint16Array;
}

function sourcesFor(shape: BenchShape, spanBytes: number): Rows[] {
  const elements = layerBytes(shape) / 2 / 2;
  const count = Math.max(2, Math.ceil(spanBytes / layerBytes(shape)));
  const first = { keys: randomHalves(elements, 1), values: randomHalves(elements, 2) };
  return Array.from({ length: count }, () => ({ keys: first.keys.slice(), values: first.values.slice() }));
}

function copy({ keys, values }: Rows, target: Uint8Array, round: number): void {
  const bytes = keys.byteLength + values.byteLength;
  const at = (round * bytes) % target.length;
  target.set(new Uint8Array(keys.buffer), at);
  target.set(new Uint8Array(values.buffer), at + keys.byteLength);
}

function createLike(client: DriveClient, { kvHeadCount, headDim }: BenchShape): Promise<Sequence> {
  return client.kv.create({ layerCount: 1, kvHeadCount, headDimK: headDim, elementTypeK: 'f16' }, { label: 'append' });
}
