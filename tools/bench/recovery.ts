/**
 * What it costs to open a drive after a crash, by the size of its flash: every block, or every KV page, is mapped, and
 * as much as a drive leaves without a checkpoint was written and never flushed. Drives are sparse files; their cells hold
 * next to nothing, and recovery does not read them. Each start is a process of its own; the disk's cache is warm.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formatFolder } from '../cli/format-drive.ts';
import { Progress } from '../cli/output.ts';
import { bytesText, median } from '../cli/quantity.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type BenchOutput, compare } from './report.ts';

const GIB = 2 ** 30;
const CAPACITIES_GIB = [1, 10, 100, 1024];
const QUICK_CAPACITIES_GIB = [1];
const ROUNDS_MAX = 5;
const scales = [
  ['100 GiB', 100 * GIB],
  ['TiB', 1024 * GIB],
] as const;
/** Just below `limits.unflushedFlashBytesMax`: beyond it the drive makes a checkpoint. */
const UNFLUSHED_BYTES = 250_000_000;
const QUICK_UNFLUSHED_BYTES = 4_000_000;
const OTHER_CAPACITY_BYTES = 2 ** 26;
const script = fileURLToPath(new URL('./recovery-process.js', import.meta.url));

interface Opened {
  readonly milliseconds: number;
  readonly cpuMilliseconds: number;
  readonly anonymousBytes: number;
  /** Anonymous memory of the process before it opened the drive. */
  readonly before: number;
  readonly superblocksScanned: number;
  readonly mediaBytes: number;
}

export const recoveryBench: Bench = {
  name: 'recovery',
  summary: 'time and memory of opening a drive after a crash, by size',
  async run(options, output) {
    const progress = new Progress();
    for (const capacityGib of options.quick ? QUICK_CAPACITIES_GIB : CAPACITIES_GIB) {
      for (const kind of ['blocks', 'KV pages'] as const) await measure(kind, capacityGib, options, output, progress);
    }
  },
};

async function measure(
  kind: 'blocks' | 'KV pages',
  capacityGib: number,
  options: BenchOptions,
  output: BenchOutput,
  progress: Progress,
): Promise<void> {
  const parent = mkdtempSync(join(tmpdir(), 'attndrive-bench-'));
  const folder = join(parent, 'drive');
  const name = `${capacityGib} GiB of ${kind}`;
  try {
    progress.update(`${name}: mapping all of it …`);
    const [blockCapacityBytes, kvCapacityBytes] =
      kind === 'blocks' ? [capacityGib * GIB, OTHER_CAPACITY_BYTES] : [OTHER_CAPACITY_BYTES, capacityGib * GIB];
    await formatFolder(folder, { blockCapacityBytes, kvCapacityBytes });
    run('fill', folder);
    const rounds = Math.min(options.rounds, ROUNDS_MAX);
    const opened: Opened[] = [];
    for (let round = 0; round < rounds; round++) {
      progress.update(`${name}: start ${round + 1} of ${rounds} …`);
      run('write', folder, String(options.quick ? QUICK_UNFLUSHED_BYTES : UNFLUSHED_BYTES));
      opened.push(JSON.parse(run('open', folder)) as Opened);
    }
    report(name, opened, output);
  } finally {
    progress.clear();
    rmSync(parent, { recursive: true, force: true });
  }
}

/** `write` and `open` end by killing themselves. */
function run(mode: string, folder: string, ...more: readonly string[]): string {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [script, mode, folder, ...more], {
    encoding: 'utf8',
  });
  if (status !== 0 && signal !== 'SIGKILL') throw new Error(`${mode}: ${stderr}`);
  return stdout;
}

function report(name: string, opened: readonly Opened[], output: BenchOutput): void {
  const { mediaBytes } = opened[0]!;
  const line = (metric: string, unit: string, value: (one: Opened) => number): void =>
    output.line(
      compare({
        bench: 'recovery',
        case: `${name}, ${bytesText(mediaBytes)} of flash`,
        metric,
        value: median(opened.map(value)),
        unit,
        samples: opened.length,
      }),
    );
  line('time', 'ms', ({ milliseconds }) => milliseconds);
  line('CPU time', 'ms', ({ cpuMilliseconds }) => cpuMilliseconds);
  line('anonymous memory', 'B', ({ anonymousBytes }) => anonymousBytes);
  line('superblocks scanned', '', ({ superblocksScanned }) => superblocksScanned);
  for (const [unitText, unitBytes] of scales) {
    // What every start costs would drown what the size does.
    if (mediaBytes < unitBytes) continue;
    const share = unitBytes / mediaBytes;
    line(`time per ${unitText}`, 'ms', ({ milliseconds }) => milliseconds * share);
    line(`CPU time per ${unitText}`, 'ms', ({ cpuMilliseconds }) => cpuMilliseconds * share);
    line(`memory per ${unitText}`, 'B', ({ anonymousBytes, before }) => (anonymousBytes - before) * share);
  }
}
