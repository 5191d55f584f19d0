/** How the drive's event loop fares under a load: how late it runs, and how long the runtime's garbage collection stops it. */
import { AdminClient } from '../../client/index.ts';
import { CliError } from '../cli/cli-error.ts';
import { type BenchOutput, compare } from './report.ts';

/** Of the timer that lag is measured with: what the metrics say includes it. */
const TICK_MS = 10;

export interface LoopHealth {
  /** How much later than due timers ran since the last look, in milliseconds. */
  readonly lagP99Ms: number;
  readonly lagMaxMs: number;
  /** Pauses of garbage collection since the start: how many, and how long together. */
  readonly pauseCount: number;
  readonly pauseMs: number;
}

export interface LoopLoad {
  readonly lagP99Ms: number;
  readonly lagMaxMs: number;
  readonly pauseCount: number;
  readonly meanPauseMs: number;
  /** Share of the time that it stood still. */
  readonly pausedShare: number;
}

/** Looks at a drive's metrics before and after a load. */
export class LoopWatch {
  readonly #admin: AdminClient;
  #before: LoopHealth | undefined;
  #startedAtMs = 0;

  /** `adminAddress`: of its control plane. */
  constructor(adminAddress: string) {
    this.#admin = new AdminClient(adminAddress);
  }

  async begin(): Promise<void> {
    this.#before = readHealth(await this.#admin.metrics());
    this.#startedAtMs = performance.now();
  }

  async end(): Promise<LoopLoad> {
    const elapsedMs = performance.now() - this.#startedAtMs;
    const after = readHealth(await this.#admin.metrics());
    const pauseCount = after.pauseCount - (this.#before?.pauseCount ?? 0);
    const pauseMs = after.pauseMs - (this.#before?.pauseMs ?? 0);
    const { lagP99Ms, lagMaxMs } = after;
    const meanPauseMs = pauseCount === 0 ? 0 : pauseMs / pauseCount;
    return { lagP99Ms, lagMaxMs, pauseCount, meanPauseMs, pausedShare: pauseMs / elapsedMs };
  }

  /** Puts `load` on the drive and tells how its event loop fared. */
  async report(
    what: { readonly bench: string; readonly case: string },
    load: () => Promise<unknown>,
    output: BenchOutput,
  ): Promise<void> {
    await this.begin();
    await load();
    const { lagP99Ms, lagMaxMs, meanPauseMs, pauseCount, pausedShare } = await this.end();
    const line = (metric: string, value: number, unit: string): void =>
      output.line(compare({ ...what, metric, value, unit, samples: Math.max(1, pauseCount) }));
    line('event loop late, p99', lagP99Ms, 'ms');
    line('event loop late, longest', lagMaxMs, 'ms');
    line('pause of garbage collection', meanPauseMs, 'ms');
    line('paused by garbage collection', 100 * pausedShare, '%');
  }

  close(): Promise<void> {
    return this.#admin.close();
  }
}

/** From the exposition text. Lags are of the time between two scrapes. */
export function readHealth(text: string): LoopHealth {
  const sum = (name: string): number => {
    const lines = text.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
    if (lines.length === 0) throw new CliError(`the drive's metrics have no ${name}`);
    return lines.reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  };
  // Collections that never happened have no line.
  const sumOrZero = (name: string): number => (text.includes(`\n${name}{`) ? sum(name) : 0);
  return {
    lagP99Ms: Math.max(0, 1000 * sum('nodejs_eventloop_lag_p99_seconds') - TICK_MS),
    lagMaxMs: Math.max(0, 1000 * sum('nodejs_eventloop_lag_max_seconds') - TICK_MS),
    pauseCount: sumOrZero('nodejs_gc_duration_seconds_count'),
    pauseMs: 1000 * sumOrZero('nodejs_gc_duration_seconds_sum'),
  };
}
