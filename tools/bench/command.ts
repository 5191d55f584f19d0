/** The bench command: which benchmarks there are, and its options. */
import { Command, Option } from 'commander';
import { kernelNames } from '../../daemon/kernels/contract.ts';
import { integerWithin } from '../cli/quantity.ts';
import { appendBench } from './append.ts';
import { attendBench } from './attend.ts';
import { attendSmallBench } from './attend-small.ts';
import type { Bench } from './bench.ts';
import { blockBench } from './block.ts';
import { coldBench } from './cold.ts';
import { commandsBench } from './commands.ts';
import { deviceBench } from './device.ts';
import { fairnessBench } from './fairness.ts';
import { kernelBench } from './kernel.ts';
import { kernelWasmBench } from './kernel-wasm.ts';
import { quantBench } from './quant.ts';
import { readbackBench } from './readback.ts';
import { recoveryBench } from './recovery.ts';
import { jsonOutput, tableOutput } from './report.ts';
import { scaleBench } from './scale.ts';
import { timingBench } from './timing.ts';
import { verifyBench } from './verify.ts';
import { wafBench } from './waf.ts';

const benches: readonly Bench[] = [
  kernelBench,
  kernelWasmBench,
  quantBench,
  attendBench,
  attendSmallBench,
  scaleBench,
  fairnessBench,
  readbackBench,
  appendBench,
  coldBench,
  blockBench,
  commandsBench,
  verifyBench,
  deviceBench,
  timingBench,
  wafBench,
  recoveryBench,
];

interface CommandOptions {
  json?: boolean;
  quick?: boolean;
  rounds?: number;
  kernels?: string;
  workers?: number;
}

const ROUNDS = 21;
const QUICK_ROUNDS = 3;

export function createBenchCommand(name: string): Command {
  const nameCharacters = Math.max(...benches.map((bench) => bench.name.length)) + 2;
  const list = benches.map((bench) => `  ${bench.name.padEnd(nameCharacters)}${bench.summary}`).join('\n');
  return new Command(name)
    .description('Measures the drive. Every figure is a median; what it is compared with ran in the same run, in turn.')
    .argument('[NAME...]', 'what to measure (default: everything)')
    .option('--json', 'one JSON object a line')
    .option('--quick', 'small and short: to see that it runs')
    .option('--rounds <N>', `timed rounds (default: ${ROUNDS})`, integerWithin(1, 10_000))
    .addOption(
      new Option('--kernels <NAME>', 'kernels of drive and client (default: auto)').choices(['auto', ...kernelNames]),
    )
    .option('--workers <N>', 'compute workers (default: one per CPU)', integerWithin(0, 256))
    .addHelpText(
      'after',
      `\nBenchmarks:\n${list}\n\nExamples:\n  $ npm run -s bench -- attend\n  $ npm run -s bench -- readback --json`,
    )
    .action(async (names: string[], options: CommandOptions, command: Command) => {
      const unknown = names.find((wanted) => !benches.some((bench) => bench.name === wanted));
      if (unknown !== undefined) {
        command.error(
          `error: unknown benchmark '${unknown}'; there are ${benches.map((bench) => bench.name).join(', ')}`,
        );
      }
      const quick = options.quick ?? false;
      const output = options.json ? jsonOutput : tableOutput({ quick });
      const { kernels, workers } = options;
      const rounds = options.rounds ?? (quick ? QUICK_ROUNDS : ROUNDS);
      for (const bench of benches) {
        if (names.length === 0 || names.includes(bench.name))
          await bench.run({ quick, rounds, kernels, workers }, output);
      }
      output.end();
    });
}
