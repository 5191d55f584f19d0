/** A report's end: one bar for each target, over all cases that were measured for it. */
import type { Paint } from '../cli/output.ts';
import { type Target, type TargetName, meets, targets } from './targets.ts';

interface Measured {
  readonly target: TargetName | null;
  readonly ratio: number | null;
}

/** Where the bound lies in a bar. */
const BOUND_CHARACTERS = 20;
const BAR_CHARACTERS = 28;

const TITLE_CHARACTERS = Math.max(...Object.values(targets).map(({ title }) => title.length));

/** A line for each target that has ratios, in the table's order: its worst case as a bar, the bound as a mark in it. */
export function summaryLines(lines: readonly Measured[], paint: Paint): string[] {
  return (Object.entries(targets) as [TargetName, Target][]).flatMap(([name, target]) => {
    const ratios = lines.flatMap(({ target: of, ratio }) => (of === name && ratio !== null ? [ratio] : []));
    return ratios.length === 0 ? [] : [summaryLine(target, ratios, paint)];
  });
}

function summaryLine(target: Target, ratios: readonly number[], paint: Paint): string {
  const sorted = ratios.toSorted((a, b) => (target.sense === 'atLeast' ? a - b : b - a));
  const [worst] = sorted as [number, ...number[]];
  const best = sorted.at(-1)!;
  const isMet = meets(target, worst);
  const sign = target.sense === 'atLeast' ? '≥' : '≤';
  const range = ratios.length === 1 ? '' : ` (best of ${ratios.length} cases: ${ratioText(best)})`;
  const verdict = isMet ? paint.green('✔') : paint.red('✘');
  return [
    `  ${target.title.padEnd(TITLE_CHARACTERS)}`,
    (isMet ? paint.green : paint.red)(bar(worst / target.bound)),
    `${verdict} ${ratioText(worst).padStart(5)}`,
    `${sign} ${ratioText(target.bound)}${range}`,
  ].join('  ');
}

/** A line in it marks a share of 1. */
function bar(share: number): string {
  const filled = Math.round(Math.min(share * BOUND_CHARACTERS, BAR_CHARACTERS));
  const cells = '█'.repeat(filled) + '·'.repeat(BAR_CHARACTERS - filled);
  return `${cells.slice(0, BOUND_CHARACTERS)}│${cells.slice(BOUND_CHARACTERS)}`;
}

function ratioText(ratio: number): string {
  return ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(2);
}
