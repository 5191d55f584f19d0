/** The drive's kernels against runtimes from npm, on the same shapes and as many threads, in turn. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Progress } from '../cli/output.ts';
import { median } from '../cli/quantity.ts';
import type { BenchOptions } from './bench.ts';
import { checkOnnxAttention, findOnnxRuntime, OnnxAttention, operatorOf } from './onnx-attention.ts';
import { type BenchOutput, compare } from './report.ts';
import type { BenchShape } from './shapes.ts';
import type { StoredLayers } from './stored-layers.ts';
import type { SetName } from './team-work.ts';
import type { ThreadTeam } from './thread-team.ts';

/** A team's threads are asleep after so long, and leave their CPUs to others. */
const REST_MS = 5;

export const peersMissing = (): string | undefined =>
  findOnnxRuntime() === undefined
    ? 'onnxruntime-node is not installed, nothing is compared with it; npm ci --ignore-scripts --prefix tools/bench/peers'
    : undefined;

export interface PeerGround {
  readonly shape: BenchShape;
  readonly layers: StoredLayers;
  readonly team: ThreadTeam;
  readonly set: SetName;
  readonly threadCount: number;
}

/** Layers a second of both, for each element type of the peer; the drive's tokens are f16. */
export async function measurePeers(
  ground: PeerGround,
  options: BenchOptions,
  progress: Progress,
  output: BenchOutput,
): Promise<void> {
  const runtime = findOnnxRuntime();
  if (runtime === undefined) return;
  const { shape, threadCount } = ground;
  await checkOnnxAttention(runtime, shape);
  for (const type of ['float32', 'float16'] as const) {
    const peer = `onnxruntime-node ${operatorOf(shape)}, ${type}`;
    progress.update(`${shape.name}: ${peer}, ${threadCount} threads …`);
    const attention = await OnnxAttention.open(runtime, shape, { type, threadCount });
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let round = 0; round <= options.rounds; round++) {
      const layerMs = attendLayer(ground, round);
      await sleep(REST_MS);
      const startMs = performance.now();
      await attention.run(round);
      const peerMs = performance.now() - startMs;
      // The first round warms up.
      if (round > 0) ours.push(layerMs);
      if (round > 0) theirs.push(peerMs);
    }
    await attention.close();
    progress.clear();
    const line = {
      bench: 'kernel',
      case: `${shape.name}, ${threadCount} ${threadCount === 1 ? 'thread' : 'threads'}`,
      metric: 'layers',
      value: 1000 / median(ours),
      unit: '1/s',
      samples: options.rounds,
    };
    output.line(compare(line, { name: peer, value: 1000 / median(theirs) }));
  }
}

/** Milliseconds for the jobs of one layer. */
function attendLayer({ shape, layers, team, set, threadCount }: PeerGround, round: number): number {
  const jobs = layers.jobs('prefill');
  const count = jobs.length / shape.layerCount;
  const first = (round % shape.layerCount) * count;
  return team.run({ kind: 'attend', set, items: jobs.slice(first, first + count) }, threadCount);
}
