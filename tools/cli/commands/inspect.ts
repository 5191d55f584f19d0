import { type Command, Option } from 'commander';
import type { DriveImage } from '../../../daemon/image/image.ts';
import { CliError } from '../cli-error.ts';
import {
  printBlockTable,
  printDrive,
  printLba,
  printMap,
  printPage,
  printSequence,
  printStaging,
} from '../inspect-text.ts';
import { printJson } from '../output.ts';
import { integerWithin, parseSequenceId } from '../quantity.ts';

interface InspectOptions {
  page?: number;
  lba?: number;
  data?: boolean;
  sequence?: bigint;
  layer?: number;
  map?: 'block' | 'kv';
  staging?: boolean;
  from?: number;
  limit?: number;
  json?: boolean;
}

const LIMIT = 40;
const NUMBER_MAX = 2 ** 32 - 2;

const epilogue = `
Without more, the drive as a whole. The drive must not be running; nothing in its folder changes. What is shown is what the
next start would find, also after a crash.

Exit status: 0, or 1 if the folder can't be read, or has no such thing.

Examples:
  $ attndrive inspect ./drive
  $ attndrive inspect ./drive --lba 5 --data
  $ attndrive inspect ./drive --sequence 7 --layer 0
  $ attndrive inspect ./drive --map kv --from 1000 --json`;

export function addInspect(program: Command): void {
  const number = integerWithin(0, NUMBER_MAX);
  program
    .command('inspect')
    .summary('look into a drive that is not running')
    .description('Shows what the drive in DIR holds: as a whole, one page, one sequence, a map, or the staging log.')
    .argument('<DIR>', "the drive's folder")
    .addOption(
      what(
        '--page <N>',
        'a physical flash page: its out-of-band entries, and whether its bytes are right',
        'page',
      ).argParser(number),
    )
    .addOption(what('--lba <N>', 'the page that a 4 KiB block is in', 'lba').argParser(number))
    .addOption(
      what('--sequence <ID>', 'a sequence: shape, lengths, where its pages lie', 'sequence').argParser(parseSequenceId),
    )
    .addOption(
      what('--map <NAME>', 'where LBAs (block), or logical pages (kv), lie, in runs', 'map').choices(['block', 'kv']),
    )
    .addOption(what('--staging', 'the records of the staging log', 'staging'))
    .option('--data', 'with --page or --lba: the bytes, too')
    .option('--layer <N>', "with --sequence: this layer's block table", integerWithin(0, 65_535))
    .option('--from <N>', 'with --map: from this LBA or logical page on', number)
    .option('--limit <N>', `rows that are shown (default: ${LIMIT})`, integerWithin(0, 1_000_000_000))
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runInspect);
}

const subjects = ['page', 'lba', 'sequence', 'map', 'staging'] as const;
const what = (flags: string, description: string, name: (typeof subjects)[number]): Option =>
  new Option(flags, description).conflicts(subjects.filter((other) => other !== name));

async function runInspect(folder: string, options: InspectOptions): Promise<void> {
  checkCombination(options);
  const { createArena } = await import('../../../daemon/base/arena.ts');
  const { DriveImage } = await import('../../../daemon/image/image.ts');
  const { openImage } = await import('../../../daemon/image/open-image.ts');
  const { loadKernels } = await import('../../../daemon/kernels/loader.ts');
  const { identityOf } = await import('../../../daemon/ftl/format.ts');
  const problems: string[] = [];
  const folderImage = openImage(folder, ({ text }) => problems.push(text));
  try {
    const arena = createArena(ARENA_BYTES);
    const kernels = loadKernels('auto', { memory: arena.memory });
    const image = await DriveImage.load(folderImage.stores, { arena, kernels });
    try {
      const name = `${folder} (${identityOf(folderImage).serial})`;
      await show(image, { name, problems, formatVersion: folderImage.formatVersion }, options);
    } finally {
      image.close();
    }
    folderImage.assertUnused();
  } finally {
    await folderImage.close();
  }
}

const ARENA_BYTES = 2 ** 20;

function checkCombination({ page, lba, data, sequence, layer, map, from }: InspectOptions): void {
  if (data && page === undefined && lba === undefined) throw new CliError('--data goes with --page or --lba', 2);
  if (layer !== undefined && sequence === undefined) throw new CliError('--layer goes with --sequence', 2);
  if (from !== undefined && map === undefined) throw new CliError('--from goes with --map', 2);
}

interface Shown {
  /** Folder and serial number. */
  readonly name: string;
  /** What is wrong with its files. */
  readonly problems: readonly string[];
  readonly formatVersion: number;
}

async function show(
  image: DriveImage,
  { name, problems, formatVersion }: Shown,
  options: InspectOptions,
): Promise<void> {
  const { page, lba, data, sequence, layer, map, staging, from, limit = LIMIT, json } = options;
  const print = <T>(value: T, text: (value: T) => void): void => (json ? printJson(value) : text(value));
  const bytesShown = { showsData: data === true };
  if (page !== undefined || lba !== undefined) {
    const { inspectLba, inspectPage } = await import('../../../daemon/image/inspect-page.ts');
    if (lba !== undefined) {
      const found = await inspectLba(image, lba);
      print(found.page && !data ? { ...found, page: withoutCells(found.page) } : found, (one) =>
        printLba(one, bytesShown),
      );
    } else {
      const found = await inspectPage(image, page!);
      print(data ? found : withoutCells(found), (one) => printPage(one, bytesShown));
    }
  } else if (sequence !== undefined) {
    const { inspectBlockTable, inspectSequence } = await import('../../../daemon/image/inspect-sequence.ts');
    if (layer === undefined) print(inspectSequence(image, sequence), printSequence);
    else
      print(inspectBlockTable(image, sequence, layer).slice(0, limit), (rows) => printBlockTable(rows, image.geometry));
  } else if (map !== undefined || staging) {
    const { inspectMap, inspectStaging } = await import('../../../daemon/image/inspect-map.ts');
    if (map !== undefined) print(inspectMap(image, map, { ...(from !== undefined && { from }), limit }), printMap);
    else print(inspectStaging(image, { limit }), printStaging);
  } else {
    const { inspectDrive } = await import('../../../daemon/image/inspect-drive.ts');
    const about = { ...inspectDrive(image), formatVersion, problems };
    print(about, (one) => printDrive(name, one));
  }
}

function withoutCells<T extends { readonly cells?: Uint8Array }>({ cells: _, ...rest }: T): Omit<T, 'cells'> {
  return rest;
}
