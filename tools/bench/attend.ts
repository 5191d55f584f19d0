/**
 * ATTN through the SDK against plain memory reads: how much of what this machine's memory can deliver does attention in
 * the drive use, round trip included? Both sides read the same number of bytes on the same number of threads, in turn.
 */
import { createArena } from '../../daemon/base/arena.ts';
import { Progress } from '../cli/output.ts';
import { type Bench, type BenchDrive, type BenchOptions, withBenchDrive } from './bench.ts';
import { ComputePool } from './compute-pool.ts';
import { prepareQuery, warmUp } from './drive-layers.ts';
import { interleave } from './measure.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, benchShapes, layerBytes } from './shapes.ts';

const SLACK_BYTES = 1 << 20;
/** Memory that the reads go through in turn, at least. */
const READ_SPAN_BYTES = 512 * 2 ** 20;

export const attendBench: Bench = {
  name: 'attend',
  summary: 'ATTN over the Unix socket with memory regions, against plain memory reads',
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
  const bytes = layerBytes(shape);
  const spans = Math.max(1, Math.floor((options.quick ? bytes : READ_SPAN_BYTES) / bytes));
  const arena = createArena(spans * bytes + SLACK_BYTES);
  const start = arena.allocate(spans * bytes);
  arena.bytes.fill(1, start, start + spans * bytes);
  const pool = new ComputePool(bench.threadCount, { memory: arena.memory, kernels: bench.kernels });
  const request = await prepareQuery(bench.client, bench.sequence, shape);
  const entry = request.entries[0]!;
  try {
    await warmUp(request, shape);
    const measured = await interleave(
      options.rounds,
      [
        { name: 'read', run: (round) => pool.read(start + (round % spans) * bytes, bytes) },
        {
          name: 'attend',
          prepare: (round) => {
            entry.layer = round % shape.layerCount;
          },
          run: () => request.post(),
        },
      ],
      (round) => progress.update(`${shape.name}: round ${round} of ${options.rounds}`),
    );
    const attendMs = measured.get('attend')!.medianMs;
    const gigabytesPerSecond = (milliseconds: number): number => bytes / milliseconds / 1e6;
    const common = {
      bench: 'attend',
      case: `${shape.name}, ${bench.kernels}, ${bench.threadCount} threads`,
      samples: options.rounds,
    };
    const reads = { name: 'memory read', value: gigabytesPerSecond(measured.get('read')!.medianMs) };
    progress.clear();
    output.line(compare({ ...common, metric: 'bandwidth', value: gigabytesPerSecond(attendMs), unit: 'GB/s' }, reads));
    output.line(compare({ ...common, metric: 'time per ATTN', value: attendMs, unit: 'ms' }));
  } finally {
    request.release();
    await pool.close();
  }
}
