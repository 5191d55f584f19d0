/** Results of the benchmarks: JSON lines for programs, bars and a summary for people. */
import { paintFor, printLine } from '../cli/output.ts';
import { bytesText } from '../cli/quantity.ts';
import { machineText } from './machine.ts';
import { summaryLines } from './summary.ts';
import type { TargetName } from './targets.ts';

/** One line of --json. `ratio` is value / baselineValue; both sides are medians of the same run, interleaved. */
export interface BenchLine {
  readonly bench: string;
  readonly case: string;
  readonly metric: string;
  readonly value: number;
  readonly unit: string;
  readonly baseline: string | null;
  readonly baselineValue: number | null;
  readonly ratio: number | null;
  readonly samples: number;
  /** What `ratio` is held against (`targets.ts`). */
  readonly target: TargetName | null;
}

export interface BenchOutput {
  line(line: BenchLine): void;
  end(): void;
}

export function compare(
  line: Omit<BenchLine, 'ratio' | 'baseline' | 'baselineValue' | 'target'>,
  baseline?: { readonly name: string; readonly value: number },
  target?: TargetName,
): BenchLine {
  const { bench, case: what, metric, value, unit, samples } = line;
  return {
    bench,
    case: what,
    metric,
    value,
    unit,
    baseline: baseline?.name ?? null,
    baselineValue: baseline?.value ?? null,
    ratio: baseline ? value / baseline.value : null,
    samples,
    target: target ?? null,
  };
}

export const jsonOutput: BenchOutput = {
  line: (line) => process.stdout.write(`${JSON.stringify(line, (_key, value: unknown) => rounded(value))}\n`),
  end: () => undefined,
};

/** Five significant digits are more than any clock here is good for. */
function rounded(value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value;
}

const BAR_CHARACTERS = 24;

/**
 * Prints what belongs together as it comes: the machine, a heading for each bench and case, a bar for each metric. At the
 * end, each target with the ratios that were measured.
 */
export function tableOutput(options: { readonly quick: boolean }): BenchOutput {
  const paint = paintFor(process.stdout);
  const lines: BenchLine[] = [];
  let heading = '';
  printLine(paint.dim(machineText()));
  return {
    line(line) {
      lines.push(line);
      if (heading !== `${line.bench} ${line.case}`) {
        heading = `${line.bench} ${line.case}`;
        printLine();
        printLine(`${paint.bold(line.bench)}  ${line.case}`);
      }
      const value = quantity(line.value, line.unit).padStart(14);
      if (line.ratio === null) {
        printLine(`  ${line.metric.padEnd(22)} ${value}`);
        return;
      }
      const against = `${line.ratio.toFixed(2)} x ${line.baseline} (${quantity(line.baselineValue ?? 0, line.unit)})`;
      printLine(`  ${line.metric.padEnd(22)} ${value}  ${paint.cyan(bar(line.ratio))}  ${against}`);
    },
    end() {
      const summary = summaryLines(lines, paint);
      const note = options.quick ? 'far too small to mean anything: --quick shows that it runs' : machineText();
      if (summary.length > 0) printLine(`\n${paint.bold('at a glance')}  ${paint.dim(note)}`);
      for (const text of summary) printLine(text);
      printLine();
    },
  };
}

function quantity(value: number, unit: string): string {
  if (unit === 'B') return bytesText(value);
  return `${value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;
}

/** Full at a ratio of 1 or more. */
function bar(ratio: number): string {
  const filled = Math.round(Math.min(ratio, 1) * BAR_CHARACTERS);
  return '█'.repeat(filled) + '·'.repeat(BAR_CHARACTERS - filled);
}
