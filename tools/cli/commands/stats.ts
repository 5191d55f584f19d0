import type { Command } from 'commander';
import { driveStatistics, logPages } from '../../../spec/log-pages.ts';
import { type DriveOption, withDrive, withDriveOption } from '../connect.ts';
import { printJson, printLine } from '../output.ts';
import { bytesText, countText, durationText } from '../quantity.ts';

interface StatsOptions extends DriveOption {
  json?: boolean;
}

export function addStats(program: Command): void {
  withDriveOption(
    program
      .command('stats')
      .summary("the drive's own counters")
      .description(
        `Prints the drive's counters (log page ${logPages.driveStatistics.lid.toString(16).toUpperCase()}h).`,
      ),
  )
    .option('--json', 'print JSON')
    .addHelpText('after', '\nThe same counters over time: HTTP GET /metrics.\n\nExample:\n  $ attndrive stats')
    .action(runStats);
}

async function runStats(options: StatsOptions): Promise<void> {
  const statistics = await withDrive(options, (client) => client.controller.driveStatistics());
  if (options.json) {
    printJson(statistics);
    return;
  }
  const names = Object.keys(statistics) as (keyof typeof statistics)[];
  const texts = names.map((name) => valueText(name, statistics[name]));
  const nameWidth = Math.max(...names.map((name) => name.length));
  const textWidth = Math.max(...texts.map((text) => text.length));
  for (const [i, name] of names.entries()) {
    printLine(`${name.padEnd(nameWidth)} : ${texts[i]!.padStart(textWidth)}  ${driveStatistics.fields[name].meaning}`);
  }
}

function valueText(name: string, value: number | bigint | string | Uint8Array): string {
  if (typeof value !== 'number') return String(value);
  if (name.endsWith('Ns')) return durationText(value / 1e6);
  return name.includes('Bytes') ? bytesText(value) : countText(value);
}
