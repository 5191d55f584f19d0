import { type Command, Option } from 'commander';
import { kernelNames } from '../../../daemon/kernels/contract.ts';
import { integerWithin } from '../quantity.ts';

const epilogue = `
Everything happens in a temporary folder and over Unix sockets; nothing is left behind unless --keep is given.

Example:
  $ attndrive demo --keep`;

export interface DemoOptions {
  tokens: number;
  prompt: string;
  kernels?: string;
  keep?: boolean;
  json?: boolean;
}

export function addDemo(program: Command): void {
  program
    .command('demo')
    .summary('see it work: a small model decoded in memory and in a drive')
    .description(
      'Formats a small drive, starts it, and decodes a text once with attention in memory and once in the drive.',
    )
    .option('--tokens <N>', 'steps', integerWithin(1, 1024), 256)
    .option('--prompt <TEXT>', 'what the text begins with', 'the drive')
    .addOption(new Option('--kernels <NAME>', 'attention kernels (default: auto)').choices(['auto', ...kernelNames]))
    .option('--keep', 'leave the drive in its folder')
    .option('--json', 'print the figures as JSON')
    .addHelpText('after', epilogue)
    .action(async (options: DemoOptions) => {
      const { runDemo } = await import('../demo-run.ts');
      await runDemo(options);
    });
}
