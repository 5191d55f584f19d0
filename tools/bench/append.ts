/**
 * Prefill: a layer's keys and values appended through a memory region, against copying the same bytes in memory. Once from
 * arrays of the client's own, which it copies into the region, and once from rows that lie there already.
 */
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
/** The same of rows in a region, of which a client has 256 MiB. */
const REGION_SPAN_BYTES = 128 * 2 ** 20;
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
        const rows = await rowsInRegion(client, shape, options.quick ? QUICK_SPAN_BYTES : REGION_SPAN_BYTES);
        const target = new Uint8Array(layerBytes(shape) * 4);
        let sequence: Sequence | undefined;
        const prepare = async (): Promise<void> => {
          await sequence?.reclaim();
          await client.kv.flush();
          sequence = await createLike(client, shape);
        };
        const appendFrom = (all: readonly Rows[]) => async (round: number) => {
          const { keys, values } = all[round % all.length]!;
          await sequence!.append(0, 0, keys, values);
        };
        const measured = await interleave(
          options.rounds,
          [
            {
              name: 'copy',
              run: async (round) => copy(sources[round % sources.length]!, target, round),
            },
            { name: 'append', prepare, run: appendFrom(sources) },
            { name: 'append in place', prepare, run: appendFrom(rows) },
          ],
          (round) => progress.update(`${shape.name}: round ${round} of ${options.rounds}`),
        );
        progress.clear();
        const rate = (name: string): number => layerBytes(shape) / measured.get(name)!.medianMs / 1e6;
        for (const [name, where] of [
          ['append', 'arrays of the client'],
          ['append in place', 'rows in the region'],
        ] as const) {
          const figures = { metric: 'bandwidth', value: rate(name), unit: 'GB/s', samples: options.rounds };
          output.line(
            compare(
              { bench: 'append', case: `${shape.name}, ${where}`, ...figures },
              { name: 'memory copy', value: rate('copy') },
              'append',
            ),
          );
        }
        await client.close();
      });
    }
  },
};

interface Rows {
  readonly keys: Uint16Array;
  readonly values: Uint16Array;
}

async function rowsInRegion(client: DriveClient, shape: BenchShape, spanBytes: number): Promise<Rows[]> {
  const sequence = await createLike(client, shape);
  const [first] = sourcesFor(shape, 0);
  const all: Rows[] = [];
  for (let i = 0; i < Math.max(2, Math.floor(spanBytes / layerBytes(shape))); i++) {
    const { keys, values } = await sequence.allocateRows(shape.tokenCount);
    (keys as Uint16Array).set(first!.keys);
    (values as Uint16Array).set(first!.values);
    all.push({ keys: keys as Uint16Array, values: values as Uint16Array });
  }
  await sequence.reclaim();
  return all;
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
