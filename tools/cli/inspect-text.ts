/** What `attndrive inspect` shows to people. */
import { oobKinds } from '../../spec/media-format/oob.ts';
import type { DriveInspection } from '../../daemon/image/inspect-drive.ts';
import type { MapInspection, StagingInspection } from '../../daemon/image/inspect-map.ts';
import type { LbaInspection, PageInspection, SlotInspection } from '../../daemon/image/inspect-page.ts';
import type { GroupPlace, SequenceInspection } from '../../daemon/image/inspect-sequence.ts';
import { channelOf, type Geometry, superblockOf, unitOf } from '../../daemon/nand/geometry.ts';
import { type Column, paintFor, printFields, printLine, printTable } from './output.ts';
import { bytesText, countText } from './quantity.ts';

const right = (title: string): Column => ({ title, align: 'right' });
const left = (title: string): Column => ({ title });

type DriveText = DriveInspection & { readonly formatVersion: number; readonly problems: readonly string[] };

export function printDrive(name: string, drive: DriveText): void {
  const { geometry, checkpoint, superblocks, stagingLog, blocks, kv } = drive;
  const { channelCount, diesPerChannel, planesPerDie, pagesPerBlock, pageSizeBytes, superblockCount } = geometry;
  const planes = planesPerDie === 1 ? '' : ` of ${planesPerDie} planes`;
  const pageText = `${bytesText(pageSizeBytes)} pages, ${pagesPerBlock} in an erase block`;
  const pool = ({ used, open, empty, validSlotCount }: DriveInspection['superblocks']['kv']): string =>
    `${countText(used)} used (${open} open, ${empty} empty), ${countText(validSlotCount)} slots of 4 KiB in use`;
  printFields([
    ['drive', name],
    ['uuid', drive.uuid],
    ['format', `version ${drive.formatVersion}, profile ${drive.profile}`],
    ['geometry', `${channelCount} channels with ${diesPerChannel} dies${planes}; ${pageText}`],
    ['superblocks', `${countText(superblockCount)}: ${superblocks.free} free, ${superblocks.bad} bad`],
    ['  blocks', pool(superblocks.block)],
    ['  KV cache', pool(superblocks.kv)],
    [
      'erases',
      `${drive.eraseCountMin} to ${drive.eraseCountMax} of a superblock; ${drive.spareBlocksPerUnit} spare blocks a unit`,
    ],
    ['checkpoint', checkpoint ? checkpointText(checkpoint) : 'none: the drive was never started'],
    ['staging log', `${countText(stagingLog.recordCount)} records that count, ${bytesText(stagingLog.payloadBytes)}`],
    ['next start', `looks through ${countText(drive.scannedSuperblockCount)} superblocks`],
    [
      'block map',
      `${countText(blocks.mappedCount)} of ${countText(blocks.lbaCount)} LBAs in pages, ${blocks.stagedCount} in the staging log`,
    ],
    [
      'sequences',
      `${countText(kv.sequenceCount)} on ${countText(kv.heldPageCount)} pages; ${countText(kv.tokenCount)} tokens in all layers`,
    ],
  ]);
  const paint = paintFor(process.stdout);
  for (const problem of [...drive.problems, ...drive.failures]) printLine(paint.red(problem));
}

function checkpointText(checkpoint: NonNullable<DriveInspection['checkpoint']>): string {
  const { operation, isClean, startCount, unsafeShutdownCount } = checkpoint;
  const end = isClean ? 'shut down in order' : 'not shut down in order';
  return `operation ${countText(operation)}, ${end}; ${startCount} starts, ${unsafeShutdownCount} of them after a crash`;
}

interface PageTextOptions {
  /** With a hexadecimal dump. */
  readonly showsData: boolean;
}

export function printLba({ lba, where, slot, page }: LbaInspection, options: PageTextOptions): void {
  if (page === undefined) {
    printLine(
      where === 'stagingLog'
        ? `LBA ${lba} is in the staging log and in no page`
        : `LBA ${lba} is nowhere: it reads as zeros`,
    );
    return;
  }
  printLine(`LBA ${lba} is in slot ${slot}`);
  printPage(page, options);
}

export function printPage(page: PageInspection, { showsData }: PageTextOptions): void {
  const pool =
    page.pool === undefined ? 'no namespace' : page.pool === 'kv' ? 'the KV namespace' : 'the block namespace';
  printFields([
    ['page', page.place],
    ['superblock', `${page.superblockState}, of ${pool}, epoch ${page.epoch}, tag ${hex(page.openTag)}`],
  ]);
  const paint = paintFor(process.stdout);
  if (page.unreadable !== undefined) printLine(paint.red(page.unreadable));
  for (const slot of page.slots) printSlot(slot);
  if (showsData && page.cells) printDump(page.cells);
}

const stateTexts = {
  none: 'holds nothing',
  damaged: 'its out-of-band entry is damaged',
  formerLife: 'of a former life of the superblock',
  present: '',
} as const;

function printSlot({ slot, entryState, entry, owner, isCopy, isMapped, isIntact }: SlotInspection): void {
  const paint = paintFor(process.stdout);
  printLine();
  if (entry === undefined) {
    const text = `slot ${slot}: ${stateTexts[entryState]}`;
    printLine(entryState === 'damaged' ? paint.red(text) : text);
    return;
  }
  const use = entryState === 'present' ? (isMapped ? 'in use' : 'not in use any more') : stateTexts[entryState];
  const verdict = isIntact === undefined ? '' : isIntact ? paint.green('right') : paint.red('WRONG');
  const fields: [string, string | number][] = [
    [`slot ${slot}`, `${owner ?? ''}; ${use}`],
    ['operation', `${countText(entry.operation)}${isCopy ? ', copied by garbage collection or the scrub' : ''}`],
    ['epoch', `${entry.epoch}, tag ${hex(entry.openTag)}`],
    ['checksum', `${hex(entry.dataCrc32c)} ${verdict}`.trimEnd()],
  ];
  if (entry.kind === oobKinds.kv) fields.push(['generation', entry.generation]);
  printFields(fields);
}

const hex = (value: number): string => `${value.toString(16).toUpperCase().padStart(8, '0')}h`;
const DUMP_ROW_BYTES = 16;

/** As `xxd` shows it; rows that repeat are one star. */
function printDump(bytes: Uint8Array): void {
  printLine();
  let before = '';
  let isRepeated = false;
  for (let at = 0; at < bytes.length; at += DUMP_ROW_BYTES) {
    const row = Buffer.from(bytes.subarray(at, at + DUMP_ROW_BYTES));
    const digits = row.toString('hex').replace(/(.{4})/g, '$1 ');
    if (digits === before) {
      if (!isRepeated) printLine('*');
      isRepeated = true;
      continue;
    }
    isRepeated = false;
    before = digits;
    const text = row.toString('latin1').replace(/[^\x20-\x7e]/g, '.');
    printLine(`${at.toString(16).padStart(8, '0')}: ${digits} ${text}`);
  }
}

export function printSequence({ id, parentId, label, leaseSeconds, owner, shape, layers }: SequenceInspection): void {
  const { kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV, groupTokens } = shape;
  const k = `K ${headDimK} x ${elementTypeK}`;
  const v = `V ${headDimV} x ${elementTypeV}`;
  printFields([
    ['sequence', `${id}${label === '' ? '' : ` "${label}"`}${parentId === 0n ? '' : `, forked from ${parentId}`}`],
    ['owner', `${owner.toString(16).padStart(16, '0')}${leaseSeconds === 0 ? '' : `, lease of ${leaseSeconds} s`}`],
    ['shape', `${shape.layerCount} layers, ${kvHeadCount} KV heads, ${k}, ${v}, ${groupTokens} tokens a group`],
  ]);
  printLine();
  printTable(
    ['layer', 'tokens', 'groups', 'tail', 'pages', 'runs', 'superblocks', 'generation', 'pages a channel'].map(right),
    layers.map((layer) => [
      String(layer.layer),
      countText(layer.tokenCount),
      countText(layer.groupCount),
      countText(layer.tailTokenCount),
      countText(layer.pageCount),
      countText(layer.runCount),
      countText(layer.superblockCount),
      String(layer.generation),
      spreadText(layer.pagesPerChannel),
    ]),
  );
}

function spreadText(counts: readonly number[]): string {
  const least = Math.min(...counts);
  const most = Math.max(...counts);
  return least === most ? String(least) : `${least} to ${most}`;
}

export function printBlockTable(rows: readonly GroupPlace[], geometry: Geometry): void {
  printTable(
    [
      right('group'),
      right('head'),
      left('part'),
      right('logical page'),
      right('page'),
      right('superblock'),
      right('channel'),
    ],
    rows.map(({ group, head, part, logicalPage, page }) => [
      String(group),
      String(head),
      part,
      String(logicalPage),
      page === undefined ? 'nowhere' : String(page),
      page === undefined ? '' : String(superblockOf(geometry, page)),
      page === undefined ? '' : String(channelOf(geometry, unitOf(geometry, page))),
    ]),
  );
}

export function printMap({ pool, entryCount, mappedCount, runs, runsLeftOut }: MapInspection): void {
  const [what, where] = pool === 'block' ? ['LBA', 'slot'] : ['logical page', 'page'];
  printTable(
    [right(what), right('count'), right(where)],
    runs.map(({ first, count, address }) => [String(first), countText(count), String(address)]),
  );
  if (runsLeftOut > 0) printLine(`… and ${countText(runsLeftOut)} more runs; --limit shows them`);
  printLine();
  printLine(`${countText(mappedCount)} of ${countText(entryCount)} are mapped`);
}

export function printStaging(log: StagingInspection): void {
  for (const { segment, sizeBytes } of log.segments) {
    const isOld = log.firstSegment !== undefined && segment < log.firstSegment;
    printLine(`segment ${segment}: ${bytesText(sizeBytes)}${isOld ? ', counts no more' : ''}`);
  }
  printLine();
  printTable(
    [right('operation'), left('kind'), right('bytes'), left('what')],
    log.records.map(({ operation, kind, payloadBytes, text }) => [String(operation), kind, String(payloadBytes), text]),
  );
  const leftOut = log.recordCount - log.records.length;
  if (leftOut > 0) printLine(`… and ${countText(leftOut)} more; --limit shows them`);
  if (log.failure !== undefined) printLine(paintFor(process.stdout).red(log.failure));
}
