import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { chapHashOf, chapHashes, formatChapSecret } from '../../../spec/index.ts';
import { CliError } from '../cli-error.ts';
import { integerWithin } from '../quantity.ts';

interface KeyOptions {
  hmac: number;
  keyLength?: number;
  output?: string;
}

const SECRET_FILE_MODE = 0o600;

const epilogue = `
The secret goes into a file that --hosts of "start" names, and to the host: "nvme connect --dhchap-secret" or the option
--dhchap-secret-file of commands that talk to a drive.

Examples:
  $ attndrive gen-dhchap-key --hmac 1 --output host.key
  $ attndrive gen-dhchap-key --key-length 64`;

export function addGenDhchapKey(program: Command): void {
  program
    .command('gen-dhchap-key')
    .summary('make a secret for in-band authentication')
    .description('Makes a DH-HMAC-CHAP secret at random, as nvme gen-dhchap-key does.')
    .option('-m, --hmac <ID>', '0: use it as it is; 1, 2, 3: transform by SHA-256, -384, -512', integerWithin(0, 3), 0)
    .option('-l, --key-length <BYTES>', '32, 48 or 64 (default: what goes with --hmac, else 32)', integerWithin(32, 64))
    .option('-o, --output <FILE>', `new file, mode 0600 (default: standard output)`)
    .addHelpText('after', epilogue)
    .action((options: KeyOptions) => {
      const transform = chapHashOf(options.hmac);
      const fitting = transform === undefined ? [32, 48, 64] : [chapHashes[transform].sizeBytes];
      const keyBytes = options.keyLength ?? fitting[0]!;
      if (!fitting.includes(keyBytes)) {
        const message = `key length ${keyBytes} with --hmac ${options.hmac}; allowed: ${fitting.join(', ')}`;
        throw new CliError(message, 2);
      }
      const text = `${formatChapSecret({ transform, key: randomBytes(keyBytes) })}\n`;
      if (options.output === undefined) process.stdout.write(text);
      else writeNew(options.output, text);
    });
}

function writeNew(path: string, text: string): void {
  try {
    writeFileSync(path, text, { mode: SECRET_FILE_MODE, flag: 'wx' });
  } catch (error) {
    throw new CliError(`${path}: ${(error as NodeJS.ErrnoException).code}`);
  }
}
