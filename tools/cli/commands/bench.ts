import type { Command } from 'commander';

/** `attndrive bench` is `npm run -s bench`: the same command, loaded when it is asked for. */
export function addBench(program: Command): void {
  program
    .command('bench')
    .summary('measure ATTN against memory bandwidth and read-back')
    .description('Measures the drive; --help lists the benchmarks.')
    .allowUnknownOption()
    .allowExcessArguments()
    .helpOption(false)
    .argument('[ARGUMENTS...]', 'as of npm run -s bench')
    .action(async (_arguments: string[], _options: object, command: Command) => {
      const { createBenchCommand } = await import('../../bench/command.ts');
      await createBenchCommand('attndrive bench')
        .exitOverride()
        .configureOutput(program.configureOutput())
        .parseAsync(command.args, { from: 'user' });
    });
}
