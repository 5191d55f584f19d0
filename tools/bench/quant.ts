/**
 * Attention over quantised KV and bf16 by the native kernels, against f16: the same tokens, over pages where the drive put
 * them, in jobs as the drive cuts them. A case goes through at least 1 GiB of f16 tokens, so that nothing comes from a cache.
 */
import { availableParallelism } from 'node:os';
import { nativeUnavailable, supportedIsas } from '../../daemon/kernels/native/native-kernels.ts';
import { Progress } from '../cli/output.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type Contestant, contest, medianRate, type Round } from './contest.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, shapeOf } from './shapes.ts';
import { StoredLayers } from './stored-layers.ts';
import type { TargetName } from './targets.ts';
import type { SetName } from './team-work.ts';
import { ThreadTeam } from './thread-team.ts';

const MIB = 2 ** 20;
const PAGE_BYTES = 16_384;
const CYCLE_BYTES = 1024 * MIB;
const QUICK_CYCLE_BYTES = 8 * MIB;
/** Of --rounds. */
const SAMPLES_PER_ROUND = 3;

const storages = ['prefill', 'bf16', 'int8', 'int4'] as const;

export const quantBench: Bench = {
  name: 'quant',
  summary: 'attention over int8, int4 and bf16 KV in each precision, time per token against f16',
  async run(options, output) {
    const missing = nativeUnavailable();
    if (missing !== undefined) {
      new Progress().done(`quant: skipped, native kernels are not built (${missing})`);
      return;
    }
    const cycleBytes = options.quick ? QUICK_CYCLE_BYTES : CYCLE_BYTES;
    for (const heads of ['32/8', '40/40'] as const) {
      for (const tokenCount of options.quick ? [512, 1024] : [4096, 32_768]) {
        await measureShape(shapeOf(heads, tokenCount, cycleBytes), options, output);
      }
    }
  },
};

async function measureShape(shape: BenchShape, options: BenchOptions, output: BenchOutput): Promise<void> {
  const progress = new Progress();
  progress.update(`${shape.name}: writing …`);
  const layers = await StoredLayers.open(shape, { pageSizeBytes: PAGE_BYTES, storages });
  const set = supportedIsas().at(-1)!;
  // The other precisions, if they are others here.
  const exact = supportedIsas('exact').at(-1)!;
  const fast = supportedIsas('fast').at(-1)!;
  const threadCounts = [...new Set([1, options.workers || availableParallelism()])];
  const team = await ThreadTeam.open(layers.resources, {
    sets: [...new Set([set, exact, fast])],
    threadCountMax: Math.max(...threadCounts),
    touched: layers.range,
  });
  try {
    for (const threadCount of threadCounts) {
      progress.update(`${shape.name}: ${threadCount} threads …`);
      const kernel = (storage: (typeof storages)[number], by: SetName): Contestant => ({
        name: storage === 'prefill' ? 'f16' : `${storage}, ${by}`,
        task: { kind: 'attend', set: by },
        threadCount,
        items: layers.jobs(storage),
        itemBytes: layers.jobBytes(storage),
      });
      const f16 = kernel('prefill', set);
      const quantised = (
        [
          ['bf16', [set, fast]],
          ['int8', [set, exact, fast]],
          ['int4', [set, exact]],
        ] as const
      ).flatMap(([type, bySets]) => [...new Set<SetName>(bySets)].map((by) => kernel(type, by)));
      const rounds = contest(team, [f16, ...quantised], options.rounds * SAMPLES_PER_ROUND);
      progress.clear();
      for (const contestant of quantised) report(shape, contestant, f16, rounds, output);
    }
  } finally {
    progress.clear();
    await team.close();
    await layers.close();
  }
}

function report(
  shape: BenchShape,
  contestant: Contestant,
  f16: Contestant,
  rounds: readonly Round[],
  output: BenchOutput,
): void {
  // Bytes are those of f16 whatever is stored, so rates are tokens.
  const tokenBytes = 2 * shape.headDim * 2;
  const tokensPerMicrosecond = ({ name }: Contestant): number => (medianRate(rounds, name) / tokenBytes) * 1e3;
  const { threadCount } = contestant;
  const threads = `${threadCount} ${threadCount === 1 ? 'thread' : 'threads'}`;
  output.line(
    compare(
      {
        bench: 'quant',
        case: `${shape.name.replace(', f16', '')}, ${contestant.name}, ${threads}`,
        metric: 'tokens of a KV head',
        value: tokensPerMicrosecond(contestant),
        unit: '1/us',
        samples: rounds.length,
      },
      { name: 'f16', value: tokensPerMicrosecond(f16) },
      targetOf(contestant, f16),
    ),
  );
}

/** Targets are for quantised types, by the set that the drive takes by itself. */
function targetOf({ name, task }: Contestant, f16: Contestant): TargetName | undefined {
  if (task.kind !== 'attend' || f16.task.kind !== 'attend' || task.set !== f16.task.set) return undefined;
  return (['int8', 'int4'] as const).find((type) => name.startsWith(`${type},`));
}
