import { createReadStream } from 'node:fs';
import type { Command } from 'commander';
import { Option } from 'commander';
import { profiles } from '../../../daemon/profiles/profiles.ts';
import { deviceTraceHeader, labelText } from '../../../spec/device-trace.ts';
import { CliError } from '../cli-error.ts';
import { printFields, printJson, printLine, Progress } from '../output.ts';
import { countText, durationText, percentText } from '../quantity.ts';
import type { ReplayedJob, TraceHeader, TraceReplay } from '../../../daemon/timing/replay.ts';

interface ReplayOptions {
  profile?: string;
  json?: boolean;
}

const epilogue = `
With the profile of the recording every latency is the recorded one, to the nanosecond. With another one: what the same
jobs would have taken there, arriving when they did; hosts that would have waited longer, or less, are not modelled.

Examples:
  $ attndrive replay trace.bin
  $ attndrive replay trace.bin --profile micron-9550 --json`;

export function addReplay(program: Command): void {
  program
    .command('replay')
    .summary('recompute a recording of device time')
    .description(
      'Computes the device times of a recording (start --record) again, with its own or with another profile.',
    )
    .argument('<FILE>', 'recording')
    .addOption(
      new Option('--profile <NAME>', 'profile to compute with (default: that of the recording)').choices(
        profiles.filter(({ timing }) => timing !== undefined).map(({ name }) => name),
      ),
    )
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runReplay);
}

async function runReplay(path: string, options: ReplayOptions): Promise<void> {
  const tally = new Tally();
  const { header, replay } = await replayFile(path, options.profile, (job) => tally.add(job));
  const rows = tally.rows();
  const differing = tally.differingCount;
  if (options.json) {
    const usage = replay.usage();
    const { serial, profile: recordedProfile } = header;
    const complete = replay.isComplete;
    printJson({ path, serial, recordedProfile, profile: replay.profile.name, complete, differing, jobs: rows, usage });
    return;
  }
  printFields([
    ['recording', `${path}${replay.isComplete ? '' : ', whose end is missing'}`],
    ['drive', `${header.serial}, profile ${header.profile}`],
    ['computed with', replay.profile.name],
    ['differing', `${countText(differing)} of ${countText(tally.jobCount)} jobs`],
  ]);
  printLine();
  printLine(
    `${'device time of'.padEnd(NAME_WIDTH)}     jobs   recorded: median      99 %   computed: median      99 %`,
  );
  for (const { name, count, recorded, computed } of rows) {
    const cells = [recorded.medianNs, recorded.p99Ns, computed.medianNs, computed.p99Ns].map((ns, column) =>
      durationText(ns / 1e6).padStart(column % 2 === 0 ? 18 : 9),
    );
    printLine(`${name.padEnd(NAME_WIDTH)} ${countText(count).padStart(8)} ${cells.join(' ')}`);
  }
  printLine();
  for (const [resource, { count, busyNs }] of Object.entries(replay.usage())) {
    const share = tally.spanNs > 0 ? busyNs / (count * tally.spanNs) : 0;
    printLine(`${resource.padEnd(NAME_WIDTH)} ${percentText(share)} busy, ${countText(count)} of them`);
  }
}

const NAME_WIDTH = 20;

async function replayFile(
  path: string,
  profile: string | undefined,
  completed: (job: ReplayedJob) => void,
): Promise<{ header: TraceHeader; replay: TraceReplay }> {
  const { readTraceHeader, TraceReplay: Replay } = await import('../../../daemon/timing/replay.ts');
  const progress = new Progress();
  let start = Buffer.alloc(0);
  let header: TraceHeader | undefined;
  let replay: TraceReplay | undefined;
  let readBytes = 0;
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
      readBytes += chunk.length;
      progress.update(`${path}: ${countText(readBytes >>> 20)} MiB`);
      if (replay !== undefined) {
        replay.push(chunk);
        continue;
      }
      start = Buffer.concat([start, chunk]);
      if (start.length < deviceTraceHeader.sizeBytes) continue;
      header = readTraceHeader(start);
      replay = new Replay(header, profile, completed);
      replay.push(start.subarray(deviceTraceHeader.sizeBytes));
    }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== undefined && /^E[A-Z]+$/.test(code)) throw new CliError(`recording ${path}: ${code}`);
    throw error;
  } finally {
    progress.clear();
  }
  header ??= readTraceHeader(start);
  replay ??= new Replay(header, profile, completed);
  return { header, replay };
}

interface LatencyRow {
  readonly medianNs: number;
  readonly p99Ns: number;
  readonly meanNs: number;
}

interface JobRow {
  readonly name: string;
  readonly count: number;
  readonly recorded: LatencyRow;
  readonly computed: LatencyRow;
}

/** What is kept of the jobs of one kind: two numbers each. */
class Tally {
  readonly #byLabel = new Map<number, { recorded: number[]; computed: number[] }>();
  #firstNs = Number.POSITIVE_INFINITY;
  #lastNs = 0;
  jobCount = 0;
  differingCount = 0;

  add({ label, arrivalNs, recordedLatencyNs, latencyNs }: ReplayedJob): void {
    let row = this.#byLabel.get(label);
    if (row === undefined) this.#byLabel.set(label, (row = { recorded: [], computed: [] }));
    row.recorded.push(recordedLatencyNs);
    row.computed.push(latencyNs);
    this.jobCount++;
    if (latencyNs !== recordedLatencyNs) this.differingCount++;
    this.#firstNs = Math.min(this.#firstNs, arrivalNs);
    this.#lastNs = Math.max(this.#lastNs, arrivalNs + latencyNs);
  }

  /** From the first arrival to the end of the last job. */
  get spanNs(): number {
    return this.jobCount === 0 ? 0 : this.#lastNs - this.#firstNs;
  }

  rows(): JobRow[] {
    return [...this.#byLabel].map(([label, { recorded, computed }]) => ({
      name: labelText(label),
      count: recorded.length,
      recorded: rowOf(recorded),
      computed: rowOf(computed),
    }));
  }
}

function rowOf(latenciesNs: readonly number[]): LatencyRow {
  const sorted = [...latenciesNs].sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)]!;
  return { medianNs: at(0.5), p99Ns: at(0.99), meanNs: sorted.reduce((sum, value) => sum + value, 0) / sorted.length };
}
