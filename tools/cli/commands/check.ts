import type { Command } from 'commander';
import type { CheckResult } from '../../../daemon/image/check.ts';
import type { Finding, FindingKind } from '../../../daemon/image/finding.ts';
import type { LostDataSummary, Span } from '../../../daemon/image/lost-data.ts';
import { CliError } from '../cli-error.ts';
import { barText, paintFor, printFields, printJson, printLine, Progress } from '../output.ts';
import { bytesText, countText, durationText, integerWithin } from '../quantity.ts';

interface CheckCommandOptions {
  limit?: number;
  json?: boolean;
}

const LIMIT = 20;
const CANNOT_CHECK = 2;

const epilogue = `
Reads everything that is in use, as the next start would find it, also after a crash; changes nothing. Each finding is a
line: its kind, where, what was found and what must be there. At the end stands what is lost: blocks, and tokens of
sequences.

Kinds: file, metadata, stagingLog, superblockHeader, map, entry, data, unreadable, sequence, tag, tokens, leak, opening.

Exit status: 0 nothing is wrong, 1 something is, 2 it could not be checked.

Examples:
  $ attndrive check ./drive
  $ attndrive check ./drive --json --limit 1000`;

export function addCheck(program: Command): void {
  program
    .command('check')
    .summary('verify everything that a drive holds, while nobody serves it')
    .description('Verifies the whole drive in DIR, which must not be running: what is wrong with it, and what is lost.')
    .argument('<DIR>', "the drive's folder")
    .option('--limit <N>', `findings of each kind that are shown (default: ${LIMIT})`, integerWithin(0, 1_000_000))
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runCheck);
}

async function runCheck(folder: string, options: CheckCommandOptions): Promise<void> {
  const progress = new Progress();
  const shown = new ShownFindings(options.limit ?? LIMIT, (finding) => {
    progress.clear();
    if (!options.json) printLine(`${paintFor(process.stdout).red(finding.kind.padEnd(KIND_WIDTH))}  ${finding.text}`);
  });
  try {
    const begunMs = performance.now();
    const { result, serial } = await checkFolder(folder, shown, progress);
    const milliseconds = performance.now() - begunMs;
    progress.clear();
    if (options.json) printJson(jsonResult(folder, serial, result, shown, milliseconds));
    else printResult(folder, serial, result, shown, milliseconds);
    process.exitCode = result.findingCount === 0 ? 0 : 1;
  } catch (error) {
    progress.clear();
    throw new CliError((error as Error).message, CANNOT_CHECK);
  }
}

const KIND_WIDTH = 16;

/** The first findings of each kind; the others are counted. */
class ShownFindings {
  readonly findings: Finding[] = [];
  readonly #counts = new Map<FindingKind, number>();
  readonly #limit: number;
  readonly #show: (finding: Finding) => void;

  constructor(limit: number, show: (finding: Finding) => void) {
    this.#limit = limit;
    this.#show = show;
  }

  add(finding: Finding): void {
    const count = this.#counts.get(finding.kind) ?? 0;
    this.#counts.set(finding.kind, count + 1);
    if (count >= this.#limit) return;
    this.findings.push(finding);
    this.#show(finding);
  }
}

async function checkFolder(
  folder: string,
  shown: ShownFindings,
  progress: Progress,
): Promise<{ result: CheckResult; serial: string }> {
  const { createArena } = await import('../../../daemon/base/arena.ts');
  const { identityOf } = await import('../../../daemon/ftl/format.ts');
  const { checkImage } = await import('../../../daemon/image/check.ts');
  const { openImage, threadedSummer } = await import('../../../daemon/image/open-image.ts');
  const { loadKernels } = await import('../../../daemon/kernels/loader.ts');
  const found: Finding[] = [];
  const image = openImage(folder, (finding) => found.push(finding));
  try {
    const arena = createArena(ARENA_BYTES);
    const kernels = loadKernels('auto', { memory: arena.memory });
    const summer = threadedSummer(image, kernels.name);
    const bar = new CheckBar(progress);
    const result = await checkImage(
      image.stores,
      { arena, kernels },
      {
        found,
        onFinding: (finding) => shown.add(finding),
        onProgress: (doneBytes, totalBytes) => bar.update(doneBytes, totalBytes),
        ...(summer && { summer }),
      },
    );
    image.assertUnused();
    return { result, serial: identityOf(image).serial };
  } finally {
    await image.close();
  }
}

const ARENA_BYTES = 2 ** 20;

/** "checking  ██████······  52 %  1.3 GiB of 2.5 GiB, 3.21 GB/s, 0.4 s left". */
class CheckBar {
  readonly #progress: Progress;
  #begunMs: number | undefined;

  constructor(progress: Progress) {
    this.#progress = progress;
  }

  update(doneBytes: number, totalBytes: number): void {
    this.#begunMs ??= performance.now();
    const elapsedMs = performance.now() - this.#begunMs;
    const share = doneBytes / totalBytes;
    const rate = elapsedMs > 0 ? doneBytes / elapsedMs / 1e6 : 0;
    const left = durationText((elapsedMs / share) * (1 - share));
    const amounts = `${bytesText(doneBytes)} of ${bytesText(totalBytes)}, ${rate.toFixed(2)} GB/s, ${left} left`;
    this.#progress.update(barText('checking', share, amounts));
  }
}

function printResult(
  folder: string,
  serial: string,
  result: CheckResult,
  shown: ShownFindings,
  milliseconds: number,
): void {
  const { findingCount, findingCounts, checkedBytes, isClean, lost } = result;
  const leftOut = findingCount - shown.findings.length;
  if (leftOut > 0) printLine(`… and ${countText(leftOut)} more; --limit shows them`);
  if (findingCount > 0) printLine();
  const rate = `${(checkedBytes / milliseconds / 1e6).toFixed(2)} GB/s`;
  const checked = `${bytesText(checkedBytes)} in ${durationText(milliseconds)}, ${rate}`;
  const state = isClean === undefined ? 'never started' : isClean ? 'shut down in order' : 'not shut down in order';
  printFields([
    ['drive', `${folder} (${serial}), ${state}`],
    ['pages in use', checkedBytes === 0 ? 'none' : checked],
    ['blocks', `${countText(result.mappedLbaCount)} mapped`],
    ['sequences', `${countText(result.sequenceCount)} on ${countText(result.kvPageCount)} pages`],
    ...lostLines(lost).map((line, index) => [index === 0 ? 'lost' : '', line] as const),
  ]);
  const paint = paintFor(process.stdout);
  if (findingCount === 0) printLine(paint.green('nothing is wrong'));
  else {
    const kinds = Object.entries(findingCounts).filter(([, count]) => count > 0);
    const text = kinds.map(([kind, count]) => `${countText(count)} ${kind}`).join(', ');
    printLine(paint.red(`${countText(findingCount)} finding${findingCount === 1 ? '' : 's'}: ${text}`));
  }
}

const SPANS_SHOWN = 12;

function lostLines({ lbaCount, lbas, sequences, isMoreUnknown }: LostDataSummary): string[] {
  const lines: string[] = [];
  if (lbaCount > 0) lines.push(`${countText(lbaCount)} block${lbaCount === 1 ? '' : 's'}: LBA ${spansText(lbas)}`);
  for (const { sequenceId, isWhole, layers } of sequences) {
    if (isWhole) lines.push(`all of sequence ${sequenceId}`);
    for (const { layer, tokens } of layers) {
      lines.push(`sequence ${sequenceId}, layer ${layer}: tokens ${spansText(tokens)}`);
    }
  }
  if (isMoreUnknown) lines.push('perhaps more: what the damaged metadata held is not known');
  return lines;
}

function spansText(spans: readonly Span[]): string {
  const texts = spans
    .slice(0, SPANS_SHOWN)
    .map(({ start, end }) => (end - start === 1 ? `${start}` : `${start} to ${end - 1}`));
  return `${texts.join(', ')}${spans.length > SPANS_SHOWN ? `, and ${spans.length - SPANS_SHOWN} more ranges` : ''}`;
}

/** Ranges end before `end`. */
function jsonResult(folder: string, serial: string, result: CheckResult, shown: ShownFindings, milliseconds: number) {
  const { findingCount, findingCounts, ...rest } = result;
  return {
    folder,
    serial,
    isSound: findingCount === 0,
    ...rest,
    isClean: result.isClean ?? null,
    seconds: milliseconds / 1000,
    findingCount,
    findingCounts,
    findings: shown.findings,
    findingsLeftOut: findingCount - shown.findings.length,
  };
}
