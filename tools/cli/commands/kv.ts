import type { Command } from 'commander';
import type { SequenceInfo } from '../../../client/index.ts';
import { writeFileSync } from 'node:fs';
import { Option } from 'commander';
import { type ElementType, elementTypeNames } from '../../../spec/element-type.ts';
import { rowSizeBytes } from '../../../spec/quantised-row.ts';
import { CliError } from '../cli-error.ts';
import { type DriveOption, withAdmin, withDrive, withDriveOption } from '../connect.ts';
import { printFields, printJson, printLine, printTable } from '../output.ts';
import { bytesText, countText, integerWithin, parseSequenceId, percentText } from '../quantity.ts';

interface CommonOptions extends DriveOption {
  json?: boolean;
}

const TOKENS_MAX = 0x7fff_ffff;
const LAYERS_MAX = 511;

const epilogue = `
Examples:
  $ attndrive kv create --layers 32 --kv-heads 8 --head-dim 128 --dtype f16 --label "chat 17"
  $ attndrive kv list
  $ attndrive kv show 1
  $ attndrive kv read 1 --layer 0 --part keys > keys.bin
  $ attndrive kv fork 1 --tokens 100
  $ attndrive kv truncate 1 50
  $ attndrive kv reclaim 1`;

export function addKv(program: Command): void {
  const kv = program
    .command('kv')
    .summary('sequences: list, show, create, fork, truncate, reclaim, read, flush')
    .description('Looks at and changes the sequences of the KV-cache namespace.')
    .addHelpText('after', epilogue);
  addLooking(kv);
  addCreating(kv);
  addChanging(kv);
  addRead(kv);
}

const leaf = (kv: Command, name: string, description: string): Command =>
  withDriveOption(kv.command(name).description(description)).option('--json', 'print JSON');

function addLooking(kv: Command): void {
  leaf(kv, 'list', 'Lists all sequences.').action(runList);
  leaf(kv, 'show', 'Shows a sequence: lengths, groups, pages, padding, and how its pages spread over the channels.')
    .argument('<ID>', 'sequence', parseSequenceId)
    .action(runShow);
}

function addCreating(kv: Command): void {
  leaf(kv, 'create', 'Creates an empty sequence and prints its id.')
    .requiredOption('--layers <N>', 'layers', integerWithin(1, LAYERS_MAX + 1))
    .requiredOption('--kv-heads <N>', 'KV heads of each layer', integerWithin(1, 512))
    .requiredOption('--head-dim <N>', 'elements of a K and a V row', integerWithin(8, 256))
    .addOption(new Option('--dtype <TYPE>', 'type K and V are stored in').choices(elementTypeNames).default('f16'))
    .option('--group-tokens <G>', 'tokens per flash page (default: as many as fit)', integerWithin(1, 65_536), 0)
    .option('--label <TEXT>', 'for people', '')
    .option(
      '--lease <SECONDS>',
      'reclaim it after this long without a command for it',
      integerWithin(0, 0xffff_ffff),
      0,
    )
    .action(runCreate);
  leaf(kv, 'fork', 'Makes a new sequence that shares the first tokens of another, and prints its id.')
    .argument('<ID>', 'sequence', parseSequenceId)
    .option('--tokens <N>', 'tokens of each layer to share (default: all)', integerWithin(0, TOKENS_MAX))
    .option('--label <TEXT>', 'for people', '')
    .action(runFork);
}

function addChanging(kv: Command): void {
  leaf(kv, 'truncate', 'Drops the tokens from LENGTH on.')
    .argument('<ID>', 'sequence', parseSequenceId)
    .argument('<LENGTH>', 'tokens to keep', integerWithin(0, TOKENS_MAX))
    .option('--layer <N>', 'of one layer only (default: of all)', integerWithin(0, LAYERS_MAX))
    .action(runTruncate);
  leaf(kv, 'reclaim', 'Gives the space of sequences back; their tokens are gone.')
    .argument('<ID...>', 'sequences', (text: string, ids: bigint[] | undefined) => [
      ...(ids ?? []),
      parseSequenceId(text),
    ])
    .action(runReclaim);
  leaf(kv, 'flush', 'Makes everything that was appended durable.').action(async (options: CommonOptions) => {
    await withDrive(options, (client) => client.kv.flush());
    if (options.json) printJson({ flushed: true });
    else printLine('flushed: everything that completed before is durable');
  });
}

function addRead(kv: Command): void {
  withDriveOption(kv.command('read'))
    .description('Writes stored rows to standard output or a file, as [token][head][element], little-endian.')
    .argument('<ID>', 'sequence', parseSequenceId)
    .requiredOption('--layer <N>', 'layer', integerWithin(0, LAYERS_MAX))
    .addOption(new Option('--part <PART>', 'which rows').choices(['keys', 'values']).default('keys'))
    .addOption(new Option('--dtype <TYPE>', 'type to convert to (default: as stored)').choices(elementTypeNames))
    .option('--token-start <N>', 'first token', integerWithin(0, TOKENS_MAX), 0)
    .option('--token-end <N>', 'one past the last (default: all)', integerWithin(0, TOKENS_MAX))
    .option('--output <FILE>', 'write there instead of standard output')
    .action(runRead);
}

async function runList(options: CommonOptions): Promise<void> {
  const infos = await withDrive(options, async (client) => {
    const found: SequenceInfo[] = [];
    for (const id of await client.kv.list()) {
      const info = await (await client.kv.open(id)).info();
      found.push(info);
    }
    return found;
  });
  if (options.json) {
    printJson(infos);
    return;
  }
  const columns = [
    { title: 'Id', align: 'right' },
    { title: 'Layers', align: 'right' },
    { title: 'KV heads', align: 'right' },
    { title: 'Head dim', align: 'right' },
    { title: 'Type' },
    { title: 'Tokens', align: 'right' },
    { title: 'Pages', align: 'right' },
    { title: 'Shared', align: 'right' },
    { title: 'Buffered', align: 'right' },
    { title: 'Label' },
  ] as const;
  printTable(columns, infos.map(listRow));
}

function listRow(info: SequenceInfo): string[] {
  const { shape } = info;
  const pair = <T>(k: T, v: T): string => (k === v ? String(k) : `${k}/${v}`);
  const shortest = Math.min(...info.lengths);
  const longest = Math.max(...info.lengths);
  return [
    String(info.id),
    String(shape.layerCount),
    String(shape.kvHeadCount),
    pair(shape.headDimK, shape.headDimV),
    pair(shape.elementTypeK, shape.elementTypeV),
    shortest === longest ? String(longest) : `${shortest}-${longest}`,
    countText(info.pageCount),
    countText(info.sharedPageCount),
    countText(info.bufferedTokenCount),
    info.label,
  ];
}

async function runShow(id: bigint, options: CommonOptions): Promise<void> {
  const info = await withDrive(options, async (client) => (await client.kv.open(id)).info());
  const blockTable = (await withAdmin(options, (admin) => admin.sequence(id)))?.blockTable;
  if (options.json) {
    printJson({ ...info, blockTable });
    return;
  }
  const { shape } = info;
  const rows = (elements: number, type: ElementType): number => shape.groupTokens * rowSizeBytes(type, elements);
  const pageBytes = rows(shape.headDimK, shape.elementTypeK) + info.paddingBytesPerPageK;
  printFields([
    ['sequence', info.id],
    ['label', info.label === '' ? '-' : info.label],
    ['forked from', info.parentId === 0n ? '-' : info.parentId],
    ['lease', info.leaseSeconds === 0 ? 'none: kept until reclaimed' : `${info.leaseSeconds} s`],
    ['shape', `${shape.layerCount} layers x ${shape.kvHeadCount} KV heads`],
    ['K rows', `${shape.headDimK} x ${shape.elementTypeK}`],
    ['V rows', `${shape.headDimV} x ${shape.elementTypeV}`],
    ['tokens per layer', lengthsText(info.lengths)],
    ['tokens per group', shape.groupTokens],
    ['groups in flash', blockTable === undefined ? 'unknown: no control plane' : countText(blockTable.groupCount)],
    [
      'flash pages',
      `${countText(info.pageCount)} of ${bytesText(pageBytes)} (${countText(info.sharedPageCount)} shared)`,
    ],
    ['padding', paddingText(info, pageBytes)],
    ['side by side', blockTable === undefined ? 'unknown' : `${blockTable.runPageMean.toFixed(1)} pages of a stream`],
    ['in tail buffer', `${countText(info.bufferedTokenCount)} tokens over all layers`],
  ]);
  printSpread(blockTable?.pagesPerChannel ?? []);
}

/** "200" or "200 x 4, 199". */
function lengthsText(lengths: readonly number[]): string {
  const runs: { length: number; count: number }[] = [];
  for (const length of lengths) {
    const last = runs.at(-1);
    if (last?.length === length) last.count++;
    else runs.push({ length, count: 1 });
  }
  if (runs.length === 1) return countText(lengths[0] ?? 0);
  return runs
    .map(({ length, count }) => (count === 1 ? countText(length) : `${countText(length)} x ${count}`))
    .join(', ');
}

function paddingText(info: SequenceInfo, pageBytes: number): string {
  // Half of the pages hold K, half V.
  const paddingBytes = (info.pageCount / 2) * (info.paddingBytesPerPageK + info.paddingBytesPerPageV);
  const share = info.pageCount === 0 ? 0 : paddingBytes / (info.pageCount * pageBytes);
  const perPage = `${info.paddingBytesPerPageK} B of a K page, ${info.paddingBytesPerPageV} B of a V page`;
  return `${bytesText(paddingBytes)} (${percentText(share)}): ${perPage}`;
}

const BAR_CHARACTERS = 40;

function printSpread(pagesPerChannel: readonly number[]): void {
  const most = Math.max(1, ...pagesPerChannel);
  for (const [channel, pages] of pagesPerChannel.entries()) {
    const bar = '█'.repeat(Math.round((BAR_CHARACTERS * pages) / most));
    printLine(`channel ${String(channel).padStart(2)}       : ${countText(pages).padStart(8)} pages ${bar}`.trimEnd());
  }
}

interface CreateOptions extends CommonOptions {
  layers: number;
  kvHeads: number;
  headDim: number;
  dtype: ElementType;
  groupTokens: number;
  label: string;
  lease: number;
}

async function runCreate(options: CreateOptions): Promise<void> {
  const { id } = await withDrive(options, (client) =>
    client.kv.create(
      {
        layerCount: options.layers,
        kvHeadCount: options.kvHeads,
        headDimK: options.headDim,
        elementTypeK: options.dtype,
        groupTokens: options.groupTokens,
      },
      { label: options.label, leaseSeconds: options.lease },
    ),
  );
  printId(id, options);
}

async function runFork(id: bigint, options: CommonOptions & { tokens?: number; label: string }): Promise<void> {
  const { tokens, label } = options;
  const fork = await withDrive(options, async (client) => {
    const sequence = await client.kv.open(id);
    const longest = Math.max(...(await sequence.info()).lengths);
    if (tokens !== undefined && tokens > longest) {
      throw new CliError(`--tokens ${tokens}; sequence ${id} has ${longest} tokens: 0 to ${longest} are allowed`);
    }
    return sequence.fork(tokens === undefined ? { label } : { label, tokenCount: tokens });
  });
  printId(fork.id, options);
}

function printId(id: bigint, options: CommonOptions): void {
  if (options.json) printJson({ id });
  else printLine(String(id));
}

async function runTruncate(id: bigint, length: number, options: CommonOptions & { layer?: number }): Promise<void> {
  const { layer } = options;
  const lengths = await withDrive(options, async (client) => {
    const sequence = await client.kv.open(id);
    await sequence.truncate(length, layer === undefined ? {} : { layer });
    return (await sequence.info()).lengths;
  });
  if (options.json) printJson({ id, lengths });
  else printLine(`sequence ${id}: tokens per layer ${lengthsText(lengths)}`);
}

async function runReclaim(ids: readonly bigint[], options: CommonOptions): Promise<void> {
  await withDrive(options, async (client) => {
    for (const id of ids) await (await client.kv.open(id)).reclaim();
  });
  if (options.json) printJson({ reclaimed: ids });
  else printLine(`reclaimed: ${ids.join(', ')}`);
}

interface ReadOptions extends DriveOption {
  layer: number;
  part: 'keys' | 'values';
  dtype?: ElementType;
  tokenStart: number;
  tokenEnd?: number;
  output?: string;
}

function checkReadRange({ id, lengths }: SequenceInfo, { layer, tokenStart, tokenEnd }: ReadOptions): void {
  const length = lengths[layer];
  if (length === undefined)
    throw new CliError(`--layer ${layer}; sequence ${id} has layers 0 to ${lengths.length - 1}`);
  if (tokenStart <= (tokenEnd ?? length) && (tokenEnd ?? length) <= length) return;
  const asked = `tokens ${tokenStart} to ${tokenEnd ?? length}`;
  throw new CliError(`${asked}; layer ${layer} of sequence ${id} has ${length}: 0 to ${length} are allowed, in order`);
}

async function runRead(id: bigint, options: ReadOptions): Promise<void> {
  const { layer, part, dtype, tokenStart, tokenEnd } = options;
  if (options.output === undefined && process.stdout.isTTY) {
    throw new CliError('rows are binary: give --output FILE, or redirect standard output');
  }
  const rows = await withDrive(options, async (client) => {
    const sequence = await client.kv.open(id);
    checkReadRange(await sequence.info(), options);
    const found = await sequence.readBack({ layer, part, tokenStart, tokenEnd, elementType: dtype });
    return found[part];
  });
  if (rows === undefined) throw new CliError(`sequence ${id}, layer ${layer}: no ${part}`);
  const bytes = Buffer.from(rows.buffer, rows.byteOffset, rows.byteLength);
  if (options.output === undefined) process.stdout.write(bytes);
  else writeFileSync(options.output, bytes);
}
