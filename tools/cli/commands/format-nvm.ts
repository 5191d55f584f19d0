import { type Command, InvalidArgumentError } from 'commander';
import { CliError } from '../cli-error.ts';
import { type DriveOption, withDrive, withDriveOption } from '../connect.ts';
import { printJson, printLine } from '../output.ts';
import { integerWithin } from '../quantity.ts';

interface FormatNvmOptions extends DriveOption {
  namespaceId: number;
  ses: number;
  lbaf: number;
  force?: boolean;
  json?: boolean;
}

const ALL_NAMESPACES = 0xffff_ffff;

const epilogue = `
The drive goes on running; commands that race with it are refused with Format In Progress. nvme-cli calls this "format";
here that makes a drive in a folder.

Examples:
  $ attndrive format-nvm --namespace-id 2 --force           # reclaims every sequence
  $ attndrive format-nvm --namespace-id 0xffffffff --ses 1 --force`;

export function addFormatNvm(program: Command): void {
  withDriveOption(
    program
      .command('format-nvm')
      .summary('empty a namespace of a running drive')
      .description('Empties a namespace of a running drive (Format NVM): what it holds is lost.'),
  )
    .requiredOption('-n, --namespace-id <NSID>', '1: blocks, 2: KV cache, 0xffffffff: all', parseNamespaceId)
    .option(
      '-s, --ses <N>',
      'secure erase: 0 none, 1 overwrite what it held in the media files',
      integerWithin(0, 1),
      0,
    )
    .option('-l, --lbaf <N>', 'LBA format: 0', integerWithin(0, 0), 0)
    .option('-f, --force', 'do it: without this nothing is sent')
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runFormatNvm);
}

function parseNamespaceId(text: string): number {
  const isNumber = /^(\d{1,10}|0x[0-9a-fA-F]{1,8})$/.test(text);
  const value = Number(text);
  if (!isNumber || value > ALL_NAMESPACES) {
    throw new InvalidArgumentError('A namespace id is a number from 0 to 4294967295, or 0x and hexadecimal digits.');
  }
  return value;
}

async function runFormatNvm(options: FormatNvmOptions): Promise<void> {
  const { namespaceId, ses, lbaf, force, json } = options;
  const which = namespaceId === ALL_NAMESPACES ? 'every namespace' : `namespace ${namespaceId}`;
  if (!force) throw new CliError(`${which} would lose everything it holds; add --force`);
  await withDrive(options, (client) => client.controller.format({ namespaceId, ses, lbaf }));
  if (json) printJson({ namespaceId, ses, lbaf });
  else printLine(`Success formatting namespace:${namespaceId.toString(16)}`);
}
