import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { AdminClient } from '../../../client/index.ts';
import type { ScrubStatus } from '../../../spec/admin-api.ts';
import { type DriveOption, withControlPlane, withDriveOption } from '../connect.ts';
import { barText, paintFor, printFields, printJson, printLine, Progress } from '../output.ts';
import { countText, durationText } from '../quantity.ts';

interface ScrubOptions extends DriveOption {
  status?: boolean;
  json?: boolean;
}

const POLL_MS = 100;
const BAD_PAGES_SHOWN = 20;

const epilogue = `
A drive scrubs by itself, slowly, while hosts do other things (start --scrub-interval). This asks for a pass now, as fast as
it goes, and waits for it; interrupted, the pass goes on. Pages whose bit errors come near to what the error correction can
do are programmed anew; pages that can't be read stay, and are told with what they held.

Exit status: 0 every page in use can be read, 1 some can't.

Examples:
  $ attndrive scrub
  $ attndrive scrub --status --json`;

export function addScrub(program: Command): void {
  const command = program
    .command('scrub')
    .summary('check every flash page in use of a running drive')
    .description('Has the drive check every flash page in use, and renew those with many bit errors.');
  withDriveOption(command)
    .option('--status', 'begin nothing, only tell')
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runScrub);
}

async function runScrub(options: ScrubOptions): Promise<void> {
  const status = await withControlPlane(options, (admin) => (options.status ? admin.scrub() : pass(admin)));
  if (options.json) printJson(status);
  else printStatus(status);
  process.exitCode = status.badPageCount === 0 ? 0 : 1;
}

/** Resolves after the pass. */
async function pass(admin: AdminClient): Promise<ScrubStatus> {
  const progress = new Progress();
  const begunMs = performance.now();
  const { passCount } = await admin.scrub();
  let status = await admin.startScrub();
  while (status.state === 'requested' && status.passCount === passCount) {
    progress.update(progressText(status, performance.now() - begunMs));
    await delay(POLL_MS);
    status = await admin.scrub();
  }
  progress.clear();
  return status;
}

/** "scrubbing  ██████······  52.0 %  1,234 of 2,370 pages, 10,200 pages/s, 0.1 s left". */
function progressText({ pass: { pagesChecked, pagesTotal } }: ScrubStatus, elapsedMs: number): string {
  const share = pagesTotal === 0 ? 1 : Math.min(1, pagesChecked / pagesTotal);
  const rate = countText(Math.round((1000 * pagesChecked) / elapsedMs));
  const left = durationText((elapsedMs / share) * (1 - share));
  const amounts = `${countText(pagesChecked)} of ${countText(pagesTotal)} pages, ${rate} pages/s, ${left} left`;
  return barText('scrubbing', share, amounts);
}

function printStatus({ intervalSeconds, state, pass: current, lastPass, badPageCount, badPages }: ScrubStatus): void {
  const paint = paintFor(process.stdout);
  for (const { page, detail } of badPages.slice(0, BAD_PAGES_SHOWN))
    printLine(`${paint.red(`page ${page}`)}  ${detail}`);
  if (badPageCount > BAD_PAGES_SHOWN) printLine(`… and ${countText(badPageCount - BAD_PAGES_SHOWN)} more`);
  if (badPageCount > 0) printLine();
  const { pagesChecked, pagesTotal } = current;
  const fields: [string, string][] = [
    ['interval', intervalSeconds === 0 ? 'off: only on request' : secondsText(intervalSeconds)],
    ['now', state === 'waiting' ? 'waiting' : `${countText(pagesChecked)} of ${countText(pagesTotal)} pages, ${state}`],
  ];
  if (lastPass) {
    const { pagesChecked: checked, pagesBad, pagesRefreshed, durationSeconds } = lastPass;
    const counts = `${countText(checked)} pages checked, ${countText(pagesRefreshed)} renewed, ${countText(pagesBad)} bad`;
    fields.push(['last pass', `${counts}, in ${secondsText(durationSeconds)}`]);
  }
  printFields(fields);
  if (badPageCount === 0) printLine(paint.green('no bad page is known'));
  else printLine(paint.red(`${countText(badPageCount)} page${badPageCount === 1 ? '' : 's'} in use cannot be read`));
}

/** 604800 -> "7.0 d", 5400 -> "1.5 h", 2.5 -> "2.5 s". */
function secondsText(seconds: number): string {
  if (seconds >= 86_400) return `${(seconds / 86_400).toFixed(1)} d`;
  if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return durationText(1000 * seconds);
}
