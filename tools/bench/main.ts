/** `npm run -s bench -- NAME... [--json]`: measures, prints a line or a bar for each result. */
import { CommanderError } from 'commander';
import { createBenchCommand } from './command.ts';

try {
  await createBenchCommand('bench')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(`attndrive: ${text.replace(/^error: /, '')}`) })
    .parseAsync(process.argv);
} catch (error) {
  const usage = error instanceof CommanderError;
  if (!usage) process.stderr.write(`attndrive: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = usage ? (error.exitCode === 0 ? 0 : 2) : 1;
}
