/** The `attndrive` command line: sub-commands stand in `commands/`, one file each. */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { errorTable } from '../../spec/errors.ts';
import { CliError } from './cli-error.ts';
import { addAttend } from './commands/attend.ts';
import { addBench } from './commands/bench.ts';
import { addCheck } from './commands/check.ts';
import { addDecode } from './commands/decode.ts';
import { addDemo } from './commands/demo.ts';
import { addDiscover } from './commands/discover.ts';
import { addDiscovery } from './commands/discovery.ts';
import { addFault } from './commands/fault.ts';
import { addFormat } from './commands/format.ts';
import { addFormatNvm } from './commands/format-nvm.ts';
import { addGenDhchapKey } from './commands/gen-dhchap-key.ts';
import { addIdentify } from './commands/identify.ts';
import { addInspect } from './commands/inspect.ts';
import { addKv } from './commands/kv.ts';
import { addList } from './commands/list.ts';
import { addEnduranceLog } from './commands/endurance-log.ts';
import { addReplay } from './commands/replay.ts';
import { addSmartLog } from './commands/smart-log.ts';
import { addScrub } from './commands/scrub.ts';
import { addStart } from './commands/start.ts';
import { addStats } from './commands/stats.ts';

const epilogue = `
Examples:
  $ attndrive format ./drive --block-capacity 256MiB --kv-capacity 1GiB
  $ attndrive start ./drive
  $ attndrive demo

Exit status: 0 success, 1 failure (one line on standard error), 2 wrong usage.`;

export function createProgram(): Command {
  const program = new Command('attndrive')
    .description('A computational storage drive that keeps KV caches in flash and computes decode attention there')
    .version(version(), '-V, --version')
    .addHelpText('after', epilogue)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(errorLine(text)) });
  addDemo(program);
  addFormat(program);
  addStart(program);
  addDiscovery(program);
  addDiscover(program);
  addDecode(program);
  addList(program);
  addIdentify(program);
  addSmartLog(program);
  addEnduranceLog(program);
  addFormatNvm(program);
  addStats(program);
  addKv(program);
  addAttend(program);
  addInspect(program);
  addCheck(program);
  addReplay(program);
  addScrub(program);
  addFault(program);
  addGenDhchapKey(program);
  addBench(program);
  return program;
}

/** Runs one command line; returns the exit status. */
export async function main(argv: readonly string[]): Promise<number> {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // The reader has seen enough (`attndrive … | head`).
    if (error.code === 'EPIPE') process.exit(0);
    throw error;
  });
  try {
    await createProgram().parseAsync([...argv]);
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    process.stderr.write(errorLine(messageOf(error)));
    if (process.env['ATTNDRIVE_DEBUG'] && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    return error instanceof CliError ? error.exitCode : 1;
  }
}

/** One line: what commander or an error says, with line breaks made spaces. */
function errorLine(text: string): string {
  return `attndrive: ${text
    .replace(/^error: /, '')
    .trim()
    .replace(/\s*\n\s*/g, ' ')}\n`;
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // What a person typed is wrong: the detail says it all.
  const typed = `${errorTable.invalidField.text}: `;
  return error.message.startsWith(typed) ? error.message.slice(typed.length) : error.message || error.name;
}

function version(): string {
  const manifest = new URL('../../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version;
}
