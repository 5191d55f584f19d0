import { type Command, Option } from 'commander';
import { faultKinds, type FaultPlace, type FaultRequest, type FaultStatus } from '../../../spec/admin-api.ts';
import { CliError } from '../cli-error.ts';
import { type DriveOption, withControlPlane, withDriveOption } from '../connect.ts';
import { printJson, printLine, printTable } from '../output.ts';
import { countText, integerWithin, parseSequenceId } from '../quantity.ts';

interface CommonOptions extends DriveOption {
  json?: boolean;
}

interface AddOptions extends CommonOptions {
  kind: FaultRequest['kind'];
  page?: number;
  superblock?: number;
  unit?: number;
  lba?: number;
  sequence?: bigint;
  layer?: number;
  head?: number;
  part?: 'K' | 'V';
  group?: number;
  next?: boolean;
  count?: number;
  bits?: number;
}

const U32_MAX = 0xffff_ffff;
const COUNT_MAX = 1_000_000;

const epilogue = `
Only a daemon that was started with --allow-faults takes faults. They end with it; bits that have flipped in the cells stay
until their page is erased, or the fault is removed.

Where: --page; --superblock, --unit or both; --lba; --sequence with --layer, --head, --part and --group; --next.
Bit errors are corrected, read again or lost as the profile's error correction has it; with --next they go into the
pages that are programmed next.

Examples:
  $ attndrive fault add --kind bit-errors --lba 12 --bits 50
  $ attndrive fault add --kind bit-errors --sequence 1 --layer 0 --head 2 --part K --group 3
  $ attndrive fault add --kind program-failure --unit 3 --count 2
  $ attndrive fault list
  $ attndrive fault remove 1`;

export function addFault(program: Command): void {
  const fault = program
    .command('fault')
    .summary('inject faults into a running drive: add, list, remove')
    .description('Makes bits and operations of the flash fail, to see what the drive makes of it.')
    .addHelpText('after', epilogue);
  const leaf = (name: string, description: string): Command =>
    withDriveOption(fault.command(name).description(description)).option('--json', 'print JSON');
  const below = (name: string, what: string, max = U32_MAX): [string, string, (text: string) => number] => [
    `--${name} <N>`,
    what,
    integerWithin(0, max),
  ];
  leaf('add', 'Injects a fault and prints it. It takes --kind, and a place or --next.')
    .addHelpText('after', epilogue)
    .addOption(new Option('--kind <KIND>', 'what fails (required)').choices(faultKinds).makeOptionMandatory())
    .option(...below('page', 'this physical page'))
    .option(...below('superblock', 'pages of this superblock'))
    .option(...below('unit', 'pages of this plane of a die'))
    .option(...below('lba', 'the page that holds this LBA now'))
    .option('--sequence <ID>', 'a page of this sequence', parseSequenceId)
    .option(...below('layer', 'of this layer', 511))
    .option(...below('head', 'of this KV head', 511))
    .addOption(new Option('--part <PART>', 'of its keys or its values').choices(['K', 'V']))
    .option(...below('group', 'that holds this token group now'))
    .option('--next', 'wherever the next operation is')
    .option(
      '--count <N>',
      'operations that fail, or pages that get bit errors (default: 1)',
      integerWithin(1, COUNT_MAX),
    )
    .option('--bits <N>', 'raw bit errors for a codeword of each page (default: 1)', integerWithin(1, COUNT_MAX))
    .action(runAdd);
  leaf('list', 'Lists faults that were injected and not removed.').action(runList);
  leaf('remove', 'Ends a fault, and takes its bit errors back.').argument('<ID>', 'fault').action(runRemove);
}

async function runAdd(options: AddOptions): Promise<void> {
  const { kind, count, bits, next } = options;
  const where = placeOf(options);
  if (next !== true && Object.keys(where).length === 0) throw new CliError('say where, or --next', 2);
  if (next === true && Object.keys(where).length > 0) throw new CliError('--next goes with no other place', 2);
  const request: FaultRequest = {
    kind,
    where,
    ...(count === undefined ? {} : { count }),
    ...(bits === undefined ? {} : { bits }),
  };
  const added = await withControlPlane(options, (admin) => admin.addFault(request));
  if (options.json) printJson(added);
  else printFaults([added]);
}

function placeOf(options: AddOptions): FaultPlace {
  const { page, superblock, unit, lba, sequence, layer, head, part, group } = options;
  const given = { page, superblock, unit, lba, sequence: sequence && String(sequence), layer, head, part, group };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

async function runList(options: CommonOptions): Promise<void> {
  const faults = await withControlPlane(options, (admin) => admin.faults());
  if (options.json) printJson(faults);
  else if (faults.length === 0) printLine('no faults');
  else printFaults(faults);
}

async function runRemove(id: string, options: CommonOptions): Promise<void> {
  await withControlPlane(options, (admin) => admin.removeFault(id));
  if (options.json) printJson({ removed: id });
  else printLine(`removed fault ${id}`);
}

const PAGES_SHOWN = 4;

function printFaults(faults: readonly FaultStatus[]): void {
  const columns = [
    { title: 'Id', align: 'right' },
    { title: 'Kind' },
    { title: 'Where' },
    { title: 'Left', align: 'right' },
    { title: 'Pages' },
  ] as const;
  printTable(
    columns,
    faults.map(({ id, kind, where = {}, bits, count, remainingCount, pages }) => {
      const places = Object.entries(where).map(([name, value]) => `${name} ${value}`);
      const shown = pages.slice(0, PAGES_SHOWN).map(({ page, state }) => `${page} ${state}`);
      if (pages.length > PAGES_SHOWN) shown.push(`and ${countText(pages.length - PAGES_SHOWN)} more`);
      const what = kind === 'bit-errors' ? `${kind} (${bits})` : kind;
      return [id, what, places.join(', ') || 'next', `${remainingCount} of ${count}`, shown.join(', ')];
    }),
  );
}
