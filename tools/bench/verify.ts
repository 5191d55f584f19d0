/**
 * What it costs to know that bytes are right: the checksum by itself against a plain read of as many bytes, and a warm
 * ATTN that checks its pages every time (`--verify always`) or trusts those that it has checked (`first-use`).
 */
import type { PreparedAttend } from '../../client/index.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { verifyPolicies } from '../../daemon/ftl/verify-policy.ts';
import { Progress } from '../cli/output.ts';
import { type Bench, type BenchOptions, withBenchDrive } from './bench.ts';
import { prepareQuery, warmUp } from './drive-layers.ts';
import { interleave } from './measure.ts';
import { createReadSum } from './read-probe.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, benchShapes, layerBytes } from './shapes.ts';

const PAGE_BYTES = 16_384;
/** More than caches hold. */
const SPAN_BYTES = 256 * 2 ** 20;
const QUICK_SPAN_BYTES = 2 ** 22;
const SLACK_BYTES = 2 ** 20;

export const verifyBench: Bench = {
  name: 'verify',
  summary: 'checksums of pages against plain reads; ATTN with and without them',
  async run(options, output) {
    const progress = new Progress();
    await measureChecksum(options, output);
    for (const shape of benchShapes(options.quick)) await measureAttend(shape, options, output, progress);
  },
};

async function measureChecksum(options: BenchOptions, output: BenchOutput): Promise<void> {
  const spanBytes = options.quick ? QUICK_SPAN_BYTES : SPAN_BYTES;
  const arena = createArena(spanBytes + SLACK_BYTES);
  const start = arena.allocate(spanBytes);
  arena.bytes.fill(1, start, start + spanBytes);
  const kernels = loadKernels((options.kernels ?? 'auto') as Parameters<typeof loadKernels>[0], arena);
  const readSum = createReadSum(arena.memory);
  const pages = async (each: (offset: number) => unknown): Promise<void> => {
    for (let at = start; at < start + spanBytes; at += PAGE_BYTES) each(at);
    return Promise.resolve();
  };
  const measured = await interleave(options.rounds, [
    { name: 'read', run: () => pages((at) => readSum(at, PAGE_BYTES)) },
    { name: 'crc', run: () => pages((at) => kernels.crc32c(at, PAGE_BYTES)) },
  ]);
  const rate = (name: string): number => spanBytes / measured.get(name)!.medianMs / 1e6;
  const line = { bench: 'verify', case: `CRC32C of 16 KiB pages, ${kernels.name} (${kernels.isa}), 1 thread` };
  output.line(
    compare(
      { ...line, metric: 'bandwidth', value: rate('crc'), unit: 'GB/s', samples: options.rounds },
      { name: 'memory read', value: rate('read') },
    ),
  );
}

/** Two drives with the same content, one of each policy, take turns. */
async function measureAttend(
  shape: BenchShape,
  options: BenchOptions,
  output: BenchOutput,
  progress: Progress,
): Promise<void> {
  const requests = new Map<string, PreparedAttend>();
  const open = (policies: readonly string[], measure: (label: string) => Promise<void>, label = ''): Promise<void> => {
    const [policy, ...rest] = policies;
    if (policy === undefined) return measure(label);
    return withBenchDrive(shape, { ...options, start: ['--verify', policy] }, progress, async (bench) => {
      const request = await prepareQuery(bench.client, bench.sequence, shape);
      await warmUp(request, shape);
      requests.set(policy, request);
      try {
        await open(rest, measure, `${shape.name}, ${bench.kernels}, ${bench.threadCount} threads`);
      } finally {
        request.release();
      }
    });
  };
  await open(verifyPolicies, async (label) => {
    const contenders = [...requests].map(([name, request]) => ({
      name,
      prepare: (round: number) => {
        request.entries[0]!.layer = round % shape.layerCount;
      },
      run: () => request.post(),
    }));
    const measured = await interleave(options.rounds, contenders, (round) =>
      progress.update(`${shape.name}: round ${round} of ${options.rounds}`),
    );
    const rate = (name: string): number => layerBytes(shape) / measured.get(name)!.medianMs / 1e6;
    progress.clear();
    output.line(
      compare(
        {
          bench: 'verify',
          case: label,
          metric: 'first-use',
          value: rate('first-use'),
          unit: 'GB/s',
          samples: options.rounds,
        },
        { name: 'always', value: rate('always') },
      ),
    );
  });
}
