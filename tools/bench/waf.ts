/**
 * Write amplification of the drive's own flash translation layer, on flash that keeps maps and no bytes: uniform random
 * writes against theory, skewed writes and sequences of KV pages against a drive that keeps nothing apart.
 */
import { defaultGcOptions, type GcOptions, type Placement, placements } from '../../daemon/ftl/gc-options.ts';
import { Progress } from '../cli/output.ts';
import { percentText } from '../cli/quantity.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type BenchLine, type BenchOutput, compare } from './report.ts';
import { type BlockRun, runBlocks } from './waf/block-run.ts';
import { runKv } from './waf/kv-run.ts';
import { fifoWriteAmplification, greedyWriteAmplification } from './waf/theory.ts';
import { hotCold, type Traffic, uniform, zipf } from './waf/traffic.ts';

const SEED = 1;
const UNIT = 'pages/page';
const OVER_PROVISIONING = [0.07, 0.15, 0.28];
const SKEWED_OVER_PROVISIONING = 0.15;
const SKEWED: readonly Traffic[] = [hotCold(0.1, 0.9), zipf(0.99)];

interface Size {
  readonly lbaCount: number;
  readonly pagesPerSuperblock: number;
}

/** 1,024 superblocks of 64 pages, and what is added to them. */
const full: Size = { lbaCount: 65_536, pagesPerSuperblock: 64 };
const quickSize: Size = { lbaCount: 4096, pagesPerSuperblock: 16 };

export const wafBench: Bench = {
  name: 'waf',
  summary: 'pages programmed for each page written, against theory and against a drive that keeps nothing apart',
  async run(options, output) {
    const progress = new Progress();
    await againstTheory(options, output, progress);
    await skewed(options, output, progress);
    await sequences(options, output, progress);
    progress.clear();
  },
};

/** What every run has in common. */
function blockRun(options: BenchOptions, overProvisioning: number, gc: Partial<GcOptions>, traffic: Traffic): BlockRun {
  const size = options.quick ? quickSize : full;
  const windowCount = options.rounds;
  return { ...size, overProvisioning, gc: { ...defaultGcOptions, ...gc }, traffic, windowCount, seed: SEED };
}

async function againstTheory(options: BenchOptions, output: BenchOutput, progress: Progress): Promise<void> {
  for (const policy of ['fifo', 'greedy'] as const) {
    for (const overProvisioning of OVER_PROVISIONING) {
      const run = blockRun(options, overProvisioning, { policy }, uniform);
      const predict = (alpha: number): number =>
        policy === 'fifo' ? fifoWriteAmplification(alpha) : greedyWriteAmplification(alpha, run.pagesPerSuperblock);
      const traffic = `uniform, ${percentText(overProvisioning)} to spare, ${policy}`;
      const { writeAmplification, alpha, superblockCount } = await runBlocks(run, (text) =>
        progress.update(`${traffic}: ${text}`),
      );
      const name = `${traffic}, ${superblockCount} superblocks of ${run.pagesPerSuperblock} pages`;
      const nominal = 1 + overProvisioning;
      const line = (metric: string, value: number, baseline: string, baselineValue: number): void => {
        const measured = { bench: 'waf', case: name, metric, value, unit: UNIT, samples: run.windowCount };
        output.line(compare(measured, { name: baseline, value: baselineValue }));
      };
      progress.clear();
      line('write amplification', writeAmplification, `theory, alpha ${alpha.toFixed(4)}`, predict(alpha));
      line('write amplification', writeAmplification, `theory, nominal alpha ${nominal}`, predict(nominal));
      line('alpha', alpha, 'nominal', nominal);
    }
  }
}

async function skewed(options: BenchOptions, output: BenchOutput, progress: Progress): Promise<void> {
  for (const traffic of [uniform, ...SKEWED]) {
    for (const policy of ['greedy', 'cost-benefit'] as const) {
      let plain: number | undefined;
      for (const placement of [...placements].reverse()) {
        const name = `${traffic.name}, ${percentText(SKEWED_OVER_PROVISIONING)} to spare, ${policy}`;
        const run = blockRun(options, SKEWED_OVER_PROVISIONING, { policy, placement }, traffic);
        const { writeAmplification } = await runBlocks(run, (text) =>
          progress.update(`${name}, ${placement}: ${text}`),
        );
        progress.clear();
        output.line(placementLine(name, placement, writeAmplification, plain, run.windowCount));
        plain ??= writeAmplification;
      }
    }
  }
}

/** Sequences that grow at once, and their longest prompts in superblocks: fewer than write points, and more. */
const servers = [
  { growingCount: 32, promptSuperblocksMax: 32 },
  { growingCount: 128, promptSuperblocksMax: 8 },
];

async function sequences(options: BenchOptions, output: BenchOutput, progress: Progress): Promise<void> {
  const { lbaCount: pageCount, pagesPerSuperblock } = options.quick ? { ...full, lbaCount: 16_384 } : full;
  for (const { growingCount, promptSuperblocksMax } of options.quick ? servers.slice(0, 1) : servers) {
    for (const overProvisioning of options.quick ? [0.28] : [0.07, 0.28]) {
      const name = `KV, ${growingCount} sequences grow at once, ${percentText(overProvisioning)} to spare`;
      let plain: number | undefined;
      for (const placement of ['plain', 'lifetime'] as const) {
        const gc = { ...defaultGcOptions, placement };
        const lengths = { warmUpCapacities: 2, measuredCapacities: options.quick ? 1 : 4 };
        const { writeAmplification, sequenceCount } = await runKv(
          {
            pageCount,
            pagesPerSuperblock,
            overProvisioning,
            gc,
            growingCount,
            promptSuperblocksMax,
            ...lengths,
            seed: SEED,
          },
          (share) => progress.update(`${name}, ${placement}: ${percentText(share)}`),
        );
        progress.clear();
        output.line(placementLine(name, placement, writeAmplification, plain, sequenceCount));
        plain ??= writeAmplification;
      }
    }
  }
}

/** Beside the plain one, which ran first. */
function placementLine(
  name: string,
  placement: Placement,
  value: number,
  plain: number | undefined,
  samples: number,
): BenchLine {
  const measured = { bench: 'waf', case: name, metric: `placement ${placement}`, value, unit: UNIT, samples };
  return compare(measured, plain === undefined ? undefined : { name: 'placement plain', value: plain });
}
