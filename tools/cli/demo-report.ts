/** What the demo says at the end. */
import { compareTokens, comparisonText } from '../model/comparison.ts';
import type { DecodedToken } from '../model/decode.ts';
import type { LoadedModel } from '../model/source.ts';
import { type Paint, paintFor, printLine } from './output.ts';
import { bytesText, countText, durationText, median, percentText, timesText } from './quantity.ts';
import type { RunCounts } from './run-counts.ts';
import { launcher, type TemporaryDrive } from './temporary-drive.ts';

const LINE_CHARACTERS = 76;
const BAR_CHARACTERS = 40;

export interface MemoryRun {
  readonly tokens: readonly DecodedToken[];
  readonly elapsedMs: number;
}

export interface DriveRun extends MemoryRun {
  readonly sequenceId: bigint;
  readonly attendMs: readonly number[];
  readonly counts: RunCounts;
  readonly kernels: string;
  readonly workerCount: number;
  readonly groupTokens: number;
}

const tokensPerSecond = ({ tokens, elapsedMs }: MemoryRun): number => (1000 * tokens.length) / elapsedMs;

const rateText = (run: MemoryRun): string => tokensPerSecond(run).toFixed(0);

export const runText = (run: MemoryRun): string =>
  `${run.tokens.length} tokens  ${durationText(run.elapsedMs).padStart(8)}  ${rateText(run).padStart(5)} tokens/s`;

const textOf = (tokens: readonly DecodedToken[]): string =>
  Buffer.concat(tokens.map(({ bytes }) => bytes)).toString('utf8');

export function figures(memory: MemoryRun, stored: DriveRun): Record<string, unknown> {
  const { counts } = stored;
  return {
    equal: compareTokens('memory', stored.tokens, memory.tokens).firstDifference === null,
    tokens: stored.tokens.length,
    text: textOf(stored.tokens),
    tokensPerSecondMemory: tokensPerSecond(memory),
    tokensPerSecondDrive: tokensPerSecond(stored),
    attendCount: stored.attendMs.length,
    attendMsMedian: median(stored.attendMs),
    ...counts,
    linkBytes: counts.socketBytes + counts.regionBytes,
    kernels: stored.kernels,
    workers: stored.workerCount,
  };
}

export function printResult(memory: MemoryRun, stored: DriveRun, loaded: LoadedModel): void {
  const paint = paintFor(process.stdout);
  const { model } = loaded;
  const comparison = compareTokens('attention in memory', stored.tokens, memory.tokens);
  printLine();
  printText(paint, 'in memory', memory);
  printText(paint, 'in drive', stored);
  const verdict =
    comparison.firstDifference === null
      ? paint.green(`✔ equal: ${comparisonText(comparison)}`)
      : paint.red(`✘ ${comparisonText(comparison)}`);
  printLine(`  ${verdict}`);
  printLine(paint.dim("  (the words mean nothing: the built-in model's weights come from a seeded generator)"));
  printLine();
  printBytes(paint, stored.counts);
  const { counts } = stored;
  const attended = counts.flashTokens + counts.bufferedTokens;
  const row = (name: string, text: string): void => printLine(`  ${paint.dim(name.padEnd(9))} ${text}`);
  const { pagesProgrammed, pagesRead } = counts;
  const share = percentText(counts.flashTokens / attended);
  const perAttend = durationText(median(stored.attendMs));
  row('ATTN', `${countText(stored.attendMs.length)} commands, ${perAttend} each (median), one per layer and token`);
  row('speed', `${rateText(stored)} tokens/s with attention in the drive, ${rateText(memory)} in memory`);
  row(
    'flash',
    `${countText(pagesProgrammed)} pages programmed, ${countText(pagesRead)} read, ${stored.groupTokens} tokens per page`,
  );
  row('attended', `${share} of ${countText(attended)} tokens in flash, the rest in the tail buffer`);
  row('kernels', `${stored.kernels}, ${stored.workerCount} workers`);
  const { layerCount, headCount, kvHeadCount, headDim } = model.shape;
  row('model', `${layerCount} layers, ${headCount} query heads on ${kvHeadCount} KV heads of ${headDim}, f32`);
}

function printText(paint: Paint, name: string, run: MemoryRun): void {
  const words = textOf(run.tokens).replace(/\n/g, ' ').split(' ');
  const lines: string[] = [];
  let line = '';
  for (const word of words) {
    if (line !== '' && line.length + 1 + word.length > LINE_CHARACTERS) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  lines.push(line);
  for (const [i, text] of lines.entries())
    printLine(`  ${paint.bold((i === 0 ? name : '').padEnd(9))} ${paint.cyan(text)}`);
  printLine();
}

function printBytes(paint: Paint, counts: RunCounts): void {
  const linkBytes = counts.socketBytes + counts.regionBytes;
  const largest = Math.max(linkBytes, counts.readBackBytes);
  const bar = (bytes: number): string => '█'.repeat(Math.max(1, Math.round((BAR_CHARACTERS * bytes) / largest)));
  const ratio = timesText(counts.readBackBytes / linkBytes);
  const hauled = bytesText(counts.readBackBytes).padStart(9);
  printLine(`  ${paint.bold('bytes over the link')}`);
  printLine(`    with ATTN              ${bytesText(linkBytes).padStart(9)}  ${paint.green(bar(linkBytes))}`);
  printLine(`    reading the cache back ${hauled}  ${bar(counts.readBackBytes)}  ${ratio}`);
  printLine();
}

/** Commands to copy. */
export function printFurther(drive: TemporaryDrive, kept: boolean, sequenceId: bigint): void {
  const paint = paintFor(process.stdout);
  const again = [
    [`attndrive start ${drive.folder}`, 'this drive again; the rest in another shell'],
    [`attndrive kv show ${sequenceId}`, 'the sequence that was just decoded'],
  ];
  const fresh = [
    ['attndrive format ./drive --block-capacity 256MiB --kv-capacity 1GiB', 'a drive to keep'],
    ['attndrive start ./drive', 'run it; the rest in another shell'],
    ['attndrive decode --prompt "the drive" --tokens 200', 'decode through it'],
    ['attndrive kv list', 'what it holds'],
  ];
  const commands = [
    [`alias attndrive=${launcher}`, ''],
    ...(kept ? again : fresh),
    ['attndrive stats', 'its counters'],
    ['attndrive --help', 'everything else'],
    ['npm run -s bench -- attend', 'ATTN against memory bandwidth'],
  ];
  const width = Math.max(...commands.slice(1).map(([text]) => text!.length));
  printLine();
  printLine(`  ${paint.bold('look further')}`);
  for (const [text, comment] of commands) {
    printLine(comment === '' ? `    ${text}` : `    ${text!.padEnd(width)}  ${paint.dim(`# ${comment}`)}`);
  }
}
