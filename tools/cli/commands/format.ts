import { type Command, InvalidArgumentError, Option } from 'commander';
import { profiles } from '../../../daemon/profiles/profiles.ts';
import { CliError } from '../cli-error.ts';
import { limits } from '../../../spec/limits.ts';
import { bytesText, countText, integerWithin, parseSize, percentText } from '../quantity.ts';
import { printFields, printJson, printLine } from '../output.ts';

interface FormatCommandOptions {
  blockCapacity?: number;
  kvCapacity?: number;
  pageSize?: number;
  channels?: number;
  diesPerChannel?: number;
  planesPerDie?: number;
  overProvisioning?: number;
  profile?: string;
  force?: boolean;
  json?: boolean;
}

const epilogue = `
Sizes: bytes, or KiB, MiB, GiB, TiB (kB, MB, GB, TB are decimal).
The files take their full size on disk only as they are written.
Small drives have far more flash than --over-provisioning says: a drive has at least 128 superblocks, and 24 beyond its
capacity for garbage collection.

Examples:
  $ attndrive format ./drive --block-capacity 256MiB --kv-capacity 1GiB
  $ attndrive format ./drive --block-capacity 64MiB --kv-capacity 256MiB --page-size 4KiB --force
  $ attndrive format ./drive --block-capacity 64MiB --kv-capacity 256MiB --profile instattention`;

export function addFormat(program: Command): void {
  program
    .command('format')
    .summary('make a drive in a folder')
    .description(
      'Makes a new, empty drive in DIR: a block namespace and a KV-cache namespace, each with its own capacity.',
    )
    .argument('<DIR>', 'folder, made if it is not there')
    .option('--block-capacity <SIZE>', 'capacity of the block namespace (required)', parseSize)
    .option('--kv-capacity <SIZE>', 'capacity of the KV-cache namespace (required)', parseSize)
    .option('--page-size <SIZE>', "flash page, 4KiB to 64KiB (default: the profile's, else 16KiB)", parseSize)
    .option('--channels <N>', "flash channels (default: the profile's, else 8)", integerWithin(1, 64))
    .option('--dies-per-channel <N>', "dies on each channel (default: the profile's, else 2)", integerWithin(1, 64))
    .option('--planes-per-die <N>', "planes of each die (default: the profile's, else 1)", integerWithin(1, 8))
    .option(
      '--over-provisioning <PERCENT>',
      'flash beyond the capacity, for garbage collection (default: 12.5)',
      parsePercent,
    )
    .addOption(
      new Option('--profile <NAME>', 'what the drive is made of: wear, errors, device time (default: ideal)').choices(
        profiles.map(({ name }) => name),
      ),
    )
    .option('--force', 'wipe the drive that is there')
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runFormat);
}

function parsePercent(text: string): number {
  const value = Number(text.replace(/\s*%$/, ''));
  if (!(value >= 1 && value <= 400)) throw new InvalidArgumentError('Percent of the capacity, from 1 to 400.');
  return value / 100;
}

/** Both, or an error that names all that are missing. */
function capacitiesOf({ blockCapacity, kvCapacity }: FormatCommandOptions) {
  if (blockCapacity !== undefined && kvCapacity !== undefined) {
    return { blockCapacityBytes: blockCapacity, kvCapacityBytes: kvCapacity };
  }
  const missing = [
    ...(blockCapacity === undefined ? ['--block-capacity SIZE'] : []),
    ...(kvCapacity === undefined ? ['--kv-capacity SIZE'] : []),
  ];
  throw new CliError(`${missing.join(' and ')} missing: 256MiB and 1GiB, for example`, 2);
}

async function runFormat(folder: string, options: FormatCommandOptions): Promise<void> {
  const capacities = capacitiesOf(options);
  const { formatDefaults, formatFolder } = await import('../format-drive.ts');
  const { RESERVE_SUPERBLOCKS } = await import('../../../daemon/nand/geometry.ts');
  const identity = await formatFolder(folder, {
    ...capacities,
    pageSizeBytes: options.pageSize,
    channelCount: options.channels,
    diesPerChannel: options.diesPerChannel,
    planesPerDie: options.planesPerDie,
    overProvisioning: options.overProvisioning,
    profile: options.profile,
    force: options.force,
  });
  if (options.json) {
    printJson({ folder, ...identity });
    return;
  }
  const { channelCount, diesPerChannel, planesPerDie, pagesPerBlock, superblockCount, pageSizeBytes } = identity;
  const unitCount = channelCount * diesPerChannel * planesPerDie;
  const rawBytes = superblockCount * pagesPerBlock * unitCount * pageSizeBytes;
  const capacityBytes = identity.blockCapacityBytes + identity.kvCapacityBytes;
  printFields([
    ['drive', folder],
    ['serial', identity.serial],
    ['block namespace (1)', bytesText(identity.blockCapacityBytes)],
    ['KV-cache namespace (2)', bytesText(identity.kvCapacityBytes)],
    ['flash', `${bytesText(rawBytes)}, ${percentText(rawBytes / capacityBytes - 1)} over-provisioned`],
    [
      'geometry',
      `${channelCount} channels x ${diesPerChannel} dies x ${planesPerDie} planes, pages of ${bytesText(pageSizeBytes)}`,
    ],
    ['profile', identity.profile],
    ['superblocks', `${countText(superblockCount)}, each of ${countText(unitCount * pagesPerBlock)} pages`],
  ]);
  const { overProvisioning = formatDefaults.overProvisioning } = options;
  if (rawBytes / capacityBytes - 1 > 1.5 * overProvisioning) {
    const reserveCount = RESERVE_SUPERBLOCKS.block + RESERVE_SUPERBLOCKS.kv;
    const least = `a drive has at least ${limits.superblockCountMin} superblocks, and ${reserveCount} beyond its capacity`;
    printLine(`so much because ${least} for garbage collection; files grow only as they are written`);
  }
  printLine(`start it: attndrive start ${folder}`);
}
