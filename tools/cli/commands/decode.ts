import { type Command, Option } from 'commander';
import { type ElementType, elementTypeNames } from '../../../spec/element-type.ts';
import { CliError } from '../cli-error.ts';
import { integerWithin, parseSequenceId } from '../quantity.ts';

export interface DecodeCommandOptions {
  model?: string;
  tokenizer?: string;
  prompt: string;
  tokens: number;
  attention: 'drive' | 'memory';
  kvDtype?: ElementType;
  groupTokens?: number;
  sequence?: bigint;
  drive?: string;
  compare: boolean;
  json?: boolean;
}

const epilogue = `
Standard output is the text alone, prompt included; progress and a summary go to standard error. As in the model's
reference program, single bytes that are not printable ASCII or white space are dropped from the text: characters that
the tokenizer has no token for, such as most beyond ASCII, do not show.
Models are version-0 checkpoints of karpathy/llama2.c. Decoding is greedy; --tokens counts steps as its run.c does.

In the drive, every layer's keys and values are appended by the ATTN command that attends to them, and the sequence
stays when decoding is over: --sequence goes on with it (give the same model and prompt), kv reclaim frees it.
With f16 and bf16 a text may leave that of f32; the summary says where. With f32 it should not: then there is a warning.

Examples:
  $ attndrive decode --prompt "the drive" --tokens 64
  $ attndrive decode --model stories260K.bin --tokenizer tok512.bin --tokens 200 --group-tokens 16
  $ attndrive decode --model stories260K.bin --tokenizer tok512.bin --tokens 400 --sequence 1
  $ attndrive decode --model stories260K.bin --tokenizer tok512.bin --attention memory --kv-dtype bf16`;

export function addDecode(program: Command): void {
  program
    .command('decode')
    .summary('decode a text with attention in the drive')
    .description('Decodes a text with a Llama model, with attention and KV cache in the drive or in memory.')
    .option('--model <FILE>', 'checkpoint (default: a small built-in model that writes gibberish)')
    .option('--tokenizer <FILE>', 'tokenizer that belongs to the model')
    .option('--prompt <TEXT>', 'what the text begins with', '')
    .option(
      '--tokens <N>',
      "steps, the prompt's included; 0: as many as the model's context",
      integerWithin(0, 2 ** 31),
      256,
    )
    .addOption(
      new Option('--attention <WHERE>', 'where attention is computed').choices(['drive', 'memory']).default('drive'),
    )
    .addOption(
      new Option('--kv-dtype <TYPE>', 'type keys and values are stored in (default: f32)').choices(elementTypeNames),
    )
    .option('--group-tokens <G>', 'tokens per flash page (default: as many as fit)', integerWithin(1, 65_536))
    .option('--sequence <ID>', 'go on with a stored sequence', parseSequenceId)
    .option('--drive <ADDRESS>', 'folder, unix:PATH or tcp:HOST:PORT (default: the one that runs)')
    .option('--no-compare', 'leave out the comparison with attention in memory')
    .option('--json', 'the summary on standard error as one line of JSON')
    .addHelpText('after', epilogue)
    .action(async (options: DecodeCommandOptions) => {
      if (options.attention === 'memory' && (options.sequence !== undefined || options.groupTokens !== undefined)) {
        const option = options.sequence === undefined ? '--group-tokens' : '--sequence';
        throw new CliError(
          `${option} needs --attention drive: in memory there are no stored sequences and no pages`,
          2,
        );
      }
      const { decodeInDrive, decodeInMemory } = await import('../decode-run.ts');
      await (options.attention === 'memory' ? decodeInMemory(options) : decodeInDrive(options));
    });
}
