/**
 * ATTN against what a host without it does: read the layer's K and V back, over the socket or through a memory region,
 * and attend to them itself, with the drive's own kernels on as many threads.
 */
import { DriveClient, type Sequence } from '../../client/index.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { Progress } from '../cli/output.ts';
import { CliError } from '../cli/cli-error.ts';
import { type Bench, type BenchDrive, type BenchOptions, withBenchDrive } from './bench.ts';
import { ClientAttention } from './client-attention.ts';
import { ComputePool } from './compute-pool.ts';
import { prepareQuery, warmUp } from './drive-layers.ts';
import { interleave } from './measure.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, benchShapes, layerBytes } from './shapes.ts';

const SLACK_BYTES = 4 << 20;
const F16_BYTES = 2;
/** Largest difference of an output element between both ways, relative to the largest element. */
const TOLERANCE = 1e-4;

export const readbackBench: Bench = {
  name: 'readback',
  summary: 'ATTN against reading the same keys and values back and attending in the client',
  async run(options, output) {
    const progress = new Progress();
    for (const shape of benchShapes(options.quick)) {
      await withBenchDrive(shape, options, progress, (bench) => measure(bench, shape, options, output, progress));
    }
  },
};

async function measure(
  bench: BenchDrive,
  shape: BenchShape,
  options: BenchOptions,
  output: BenchOutput,
  progress: Progress,
): Promise<void> {
  const arena = createArena(layerBytes(shape) + SLACK_BYTES);
  const pool = new ComputePool(bench.threadCount, { memory: arena.memory, kernels: bench.kernels });
  const attention = new ClientAttention(shape, arena, pool);
  const request = await prepareQuery(bench.client, bench.sequence, shape);
  const entry = request.entries[0]!;
  attention.queries.set(entry.queries);
  const overSocket = await DriveClient.connect(bench.drive.address, { regions: 'off' });
  try {
    await warmUp(request, shape);
    const socketSequence = await overSocket.kv.open(bench.sequence.id);
    const layerOf = (round: number): number => round % shape.layerCount;
    const haul = async (sequence: Sequence, round: number): Promise<void> => {
      await readLayer(sequence, layerOf(round), shape, attention);
      await attention.run();
    };
    const measured = await interleave(
      options.rounds,
      [
        {
          name: 'attend',
          prepare: (round) => {
            entry.layer = layerOf(round);
          },
          run: () => request.post(),
        },
        { name: 'socket', run: (round) => haul(socketSequence, round) },
        { name: 'region', run: (round) => haul(bench.sequence, round) },
      ],
      (round) => {
        progress.update(`${shape.name}: round ${round} of ${options.rounds}`);
        if (round === 1) checkEqual(entry.output as Float32Array, attention.output, shape);
      },
    );
    const attendMs = measured.get('attend')!.medianMs;
    const common = {
      bench: 'readback',
      case: `${shape.name}, ${bench.kernels}, ${bench.threadCount} threads`,
      samples: options.rounds,
    };
    progress.clear();
    for (const way of ['socket', 'region'] as const) {
      const { medianMs } = measured.get(way)!;
      // A rate, so that a larger ratio is better.
      const perSecond = { name: `read back (${way}) and attend`, value: 1000 / medianMs };
      output.line(
        compare({ ...common, metric: `ATTN against ${way}`, value: 1000 / attendMs, unit: '1/s' }, perSecond),
      );
    }
    output.line(compare({ ...common, metric: 'bytes kept from link', value: layerBytes(shape), unit: 'B' }));
  } finally {
    request.release();
    await overSocket.close();
    await pool.close();
  }
}

/** K, then V, of all heads, straight into the memory that the kernels attend to. */
async function readLayer(
  sequence: Sequence,
  layer: number,
  shape: BenchShape,
  attention: ClientAttention,
): Promise<void> {
  const elements = attention.layer.byteLength / 2 / F16_BYTES;
  const { buffer, byteOffset } = attention.layer;
  const keys = new Uint16Array(buffer, byteOffset, elements);
  const values = new Uint16Array(buffer, byteOffset + elements * F16_BYTES, elements);
  await sequence.readBack({ layer, headMajor: true, tokenEnd: shape.tokenCount, into: { keys, values } });
}

/** A race between two ways that do not arrive at the same place would mean nothing. */
function checkEqual(drive: Float32Array, client: Float32Array, shape: BenchShape): void {
  const scale = Math.max(...drive.map(Math.abs));
  for (const [i, value] of drive.entries()) {
    const difference = Math.abs(value - client[i]!);
    if (!(difference <= TOLERANCE * scale)) {
      throw new CliError(`${shape.name}: output ${i} is ${value} in the drive and ${client[i]} in the client`);
    }
  }
}
