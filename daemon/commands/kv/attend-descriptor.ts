import { type ElementType, elementSizeBytes } from '../../../spec/element-type.ts';
import { errorTable } from '../../../spec/errors.ts';
import {
  ALL_TOKENS,
  attendEntry,
  attendFlags,
  attendHeader,
  attendModes,
  attendOutputs,
  DESCRIPTOR_VERSION,
} from '../../../spec/kv-commands.ts';
import { outputSizeBytes, type AttendOptions } from '../../attention/contract.ts';
import { DriveError } from '../../base/errors.ts';
import type { Association, Limits, MemoryRegion } from '../contract.ts';
import { elementTypeIn, requiredFloatType } from '../fields.ts';
import type { KvStore } from '../../kv/contract.ts';

/** Where bytes of an entry lie: in the command's own data, or in a region. */
export interface Location {
  readonly region: MemoryRegion | undefined;
  readonly offset: number;
  readonly lengthBytes: number;
}

export interface Output {
  readonly kind: number;
  readonly key: number;
  readonly region: MemoryRegion | undefined;
  readonly offset: number;
  /** Of them, outputs without statistics. */
  readonly rowBytes: number;
  readonly lengthBytes: number;
}

/** One entry, checked against the command, the association and the sequence's shape. */
export interface AttendEntryPlan {
  readonly sequenceId: bigint;
  readonly layer: number;
  readonly queryHeadsPerKvHead: number;
  readonly firstQueryHead: number;
  readonly queryHeadCount: number;
  readonly queryTokenCount: number;
  readonly queryPosition: number;
  readonly tokenStart: number;
  readonly tokenEnd: number | undefined;
  readonly query: Location;
  readonly append: (Location & { readonly position: number; readonly tokenCount: number }) | undefined;
  readonly output: Output;
}

export interface AttendPlan {
  readonly options: AttendOptions;
  readonly appendType: ElementType | undefined;
  /** DW1 is the device latency instead of the number of buffered tokens. */
  readonly returnsDeviceTime: boolean;
  readonly entries: readonly AttendEntryPlan[];
}

export interface AttendScope {
  readonly limits: Limits;
  readonly kv: KvStore;
  readonly association: Association;
  /** Bytes that *attend exchange* returns; undefined: not that command. */
  readonly exchangeBytes: number | undefined;
}

const FLAG_MASK = attendFlags.causal | attendFlags.statistics | attendFlags.deviceTime;

/**
 * Reads header and entries from the command's data. `bytes` must be the drive's own copy: a client can change its
 * region while we look at it. An error of an entry carries the entry's index in its result.
 */
export function parseAttend(bytes: Uint8Array, scope: AttendScope): AttendPlan {
  if (bytes.length < attendHeader.sizeBytes) {
    throw new DriveError('sglDataLength', `${bytes.length} bytes of data, at least ${attendHeader.sizeBytes}`);
  }
  const header = attendHeader.decode(bytes);
  checkHeader(bytes, header, scope.limits);
  const options: AttendOptions = {
    causal: (header.flags & attendFlags.causal) !== 0,
    statistics: (header.flags & attendFlags.statistics) !== 0,
    queryType: requiredFloatType(header.queryType, 'query type'),
    outputType: requiredFloatType(header.outputType, 'output type'),
    scale: header.scale,
    softCap: header.softCap,
    slidingWindow: header.slidingWindow,
    sinkCount: header.sinkCount,
  };
  const appendType = elementTypeIn(header.appendType, 'append type');
  const totals = { rowCount: 0, bytes: 0 };
  const entries: AttendEntryPlan[] = [];
  for (let index = 0; index < header.entryCount; index++) {
    const at = attendHeader.sizeBytes + index * attendEntry.sizeBytes;
    entries.push(atEntry(index, () => parseEntry(bytes, at, { options, appendType, totals, scope })));
  }
  const returnsDeviceTime = (header.flags & attendFlags.deviceTime) !== 0;
  return { options, appendType, returnsDeviceTime, entries };
}

/** Runs `work`; a DriveError gets the entry's index as its result. */
export function atEntry<T>(index: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw entryError(index, error);
  }
}

/** A media error keeps its result, which is the page. */
export function entryError(index: number, error: unknown): unknown {
  if (!(error instanceof DriveError) || error.code === 'unrecoveredRead') return error;
  const detail = error.message.slice(errorTable[error.code].text.length + 2);
  return new DriveError(error.code, `entry ${index}: ${detail}`, { result: index, cause: error });
}

type Header = ReturnType<typeof attendHeader.decode>;

function checkHeader(bytes: Uint8Array, header: Header, limits: Limits): void {
  const refuse = (detail: string): DriveError => new DriveError('invalidField', `attend header: ${detail}`);
  if (header.version !== DESCRIPTOR_VERSION) {
    throw new DriveError('unsupportedVersion', `version ${header.version}, supported: ${DESCRIPTOR_VERSION}`);
  }
  if (header.mode !== attendModes.dense)
    throw new DriveError('attendMode', `mode ${header.mode}, supported: 0 (dense)`);
  const stray = attendHeader.firstNonZeroReserved(bytes);
  if (stray !== undefined) throw refuse(`reserved byte ${stray} is not zero`);
  if ((header.flags & ~FLAG_MASK) !== 0) throw refuse(`flags ${header.flags}, allowed bits: ${FLAG_MASK}`);
  if (!Number.isFinite(header.scale)) throw refuse(`scale ${header.scale} is not finite`);
  if (!Number.isFinite(header.softCap) || header.softCap < 0) throw refuse(`soft cap ${header.softCap}`);
  const { entryCount } = header;
  if (entryCount < 1 || entryCount > limits.attendEntryCountMax) {
    throw refuse(`${entryCount} entries, allowed: 1 to ${limits.attendEntryCountMax}`);
  }
  const descriptorBytes = attendHeader.sizeBytes + entryCount * attendEntry.sizeBytes;
  if (descriptorBytes > bytes.length) {
    throw new DriveError(
      'sglDataLength',
      `${bytes.length} bytes of data, ${entryCount} entries take ${descriptorBytes}`,
    );
  }
}

interface EntryScope {
  readonly options: AttendOptions;
  readonly appendType: ElementType | undefined;
  readonly totals: { rowCount: number; bytes: number };
  readonly scope: AttendScope;
}

function parseEntry(
  bytes: Uint8Array,
  at: number,
  { options, appendType, totals, scope }: EntryScope,
): AttendEntryPlan {
  const { limits, kv, association, exchangeBytes } = scope;
  const entry = attendEntry.decode(bytes, at);
  const stray = attendEntry.firstNonZeroReserved(bytes, at);
  if (stray !== undefined) throw new DriveError('invalidField', `reserved byte ${stray} of the entry is not zero`);
  const shape = kv.shape(entry.sequenceId);
  if (entry.layer >= shape.layerCount) {
    throw new DriveError('layerRange', `layer ${entry.layer}, the sequence has ${shape.layerCount}`);
  }
  const queryHeadCount = checkHeads(entry, shape.kvHeadCount, limits);
  checkTokens(entry, limits);
  const rowCount = entry.queryTokenCount * queryHeadCount;
  const query = {
    lengthBytes: rowCount * shape.headDimK * elementSizeBytes(options.queryType),
    offset: entry.queryOffset,
    region: regionOf(association, entry.queryKey),
  };
  checkSource(query, bytes.length, 'queries');
  const append = appendOf(entry, kv, appendType, association);
  if (append !== undefined) checkSource(append, bytes.length, 'keys and values');
  const outputSize = elementSizeBytes(options.outputType);
  const lengthBytes = outputSizeBytes(rowCount, shape.headDimV, outputSize, options.statistics);
  const output = { ...outputOf(entry, association), rowBytes: rowCount * shape.headDimV * outputSize, lengthBytes };
  checkOutput(output, exchangeBytes, limits);
  totals.rowCount += rowCount;
  totals.bytes += query.lengthBytes + lengthBytes + (append?.lengthBytes ?? 0);
  if (totals.rowCount > limits.queryRowCountMax || totals.bytes > limits.attendBytesMax) {
    const allowed = `${limits.queryRowCountMax} query rows and ${limits.attendBytesMax} bytes`;
    throw new DriveError(
      'invalidField',
      `${totals.rowCount} query rows and ${totals.bytes} bytes, allowed: ${allowed}`,
    );
  }
  const { sequenceId, layer, queryHeadsPerKvHead, firstQueryHead, queryTokenCount, queryPosition, tokenStart } = entry;
  const tokenEnd = entry.tokenEnd === ALL_TOKENS ? undefined : entry.tokenEnd;
  return {
    sequenceId,
    layer,
    queryHeadsPerKvHead,
    firstQueryHead,
    queryHeadCount,
    queryTokenCount,
    queryPosition,
    tokenStart,
    tokenEnd,
    query,
    append,
    output,
  };
}

type Entry = ReturnType<typeof attendEntry.decode>;

function checkHeads(entry: Entry, kvHeadCount: number, limits: Limits): number {
  const { queryHeadsPerKvHead: perHead, firstQueryHead } = entry;
  if (perHead < 1 || perHead > limits.queryHeadsPerKvHeadMax) {
    throw new DriveError(
      'headRange',
      `${perHead} query heads per KV head, allowed: 1 to ${limits.queryHeadsPerKvHeadMax}`,
    );
  }
  const total = perHead * kvHeadCount;
  // 0 means all heads, and all begin at the first.
  const count = entry.queryHeadCount === 0 ? total : entry.queryHeadCount;
  if (firstQueryHead + count > total) {
    throw new DriveError('headRange', `query heads ${firstQueryHead}+${count}, the sequence has ${total}`);
  }
  return count;
}

function checkTokens(entry: Entry, limits: Limits): void {
  const { queryTokenCount, queryPosition, tokenStart, tokenEnd, appendTokenCount, appendPosition } = entry;
  if (queryTokenCount < 1 || queryTokenCount > limits.queryTokenCountMax) {
    throw new DriveError('tokenRange', `${queryTokenCount} query tokens, allowed: 1 to ${limits.queryTokenCountMax}`);
  }
  if (queryPosition + queryTokenCount > limits.sequenceTokensMax) {
    throw new DriveError('tokenRange', `query positions ${queryPosition}+${queryTokenCount}`);
  }
  if (tokenStart > limits.sequenceTokensMax || (tokenEnd !== ALL_TOKENS && tokenStart > tokenEnd)) {
    throw new DriveError('tokenRange', `tokens ${tokenStart} to ${tokenEnd}`);
  }
  if (appendTokenCount === 0 && appendPosition !== 0) {
    throw new DriveError('invalidField', `append position ${appendPosition} without tokens to append`);
  }
  if (appendPosition + appendTokenCount > limits.sequenceTokensMax) {
    throw new DriveError('tokenRange', `append of tokens ${appendPosition}+${appendTokenCount}`);
  }
}

const regionOf = (association: Association, key: number): MemoryRegion | undefined =>
  key === 0 ? undefined : association.region(key);

function appendOf(
  entry: Entry,
  kv: KvStore,
  appendType: ElementType | undefined,
  association: Association,
): AttendEntryPlan['append'] {
  const { sequenceId, appendTokenCount: tokenCount, appendPosition: position } = entry;
  if (tokenCount === 0) {
    if (entry.appendKey !== 0 || entry.appendOffset !== 0) {
      throw new DriveError('invalidField', 'append key or offset without tokens to append');
    }
    return undefined;
  }
  return {
    region: regionOf(association, entry.appendKey),
    offset: entry.appendOffset,
    lengthBytes: kv.appendSizeBytes(sequenceId, tokenCount, appendType),
    position,
    tokenCount,
  };
}

function checkSource({ region, offset, lengthBytes }: Location, dataBytes: number, what: string): void {
  if (region !== undefined) region.check(offset, lengthBytes);
  else if (offset + lengthBytes > dataBytes) {
    throw new DriveError(
      'sglOffset',
      `${what} at ${offset}+${lengthBytes}, the command has ${dataBytes} bytes of data`,
    );
  }
}

function outputOf(entry: Entry, association: Association): Pick<Output, 'kind' | 'key' | 'region' | 'offset'> {
  const { outKind: kind, outKey: key, outOffset: offset } = entry;
  const region = kind === attendOutputs.region ? association.region(key) : undefined;
  return { kind, key, region, offset };
}

function checkOutput(output: Output, exchangeBytes: number | undefined, limits: Limits): void {
  const { kind, key, region, offset, lengthBytes } = output;
  switch (kind) {
    case attendOutputs.exchange:
      if (exchangeBytes === undefined || key !== 0) {
        throw new DriveError('invalidField', 'output of kind exchange: only of attend exchange, with key 0');
      }
      if (offset + lengthBytes > exchangeBytes) {
        throw new DriveError(
          'sglDataLength',
          `output at ${offset}+${lengthBytes}, the command returns ${exchangeBytes}`,
        );
      }
      return;
    case attendOutputs.region:
      region?.check(offset, lengthBytes);
      return;
    case attendOutputs.slot:
      if (key >= limits.resultSlotCountMax || offset + lengthBytes > limits.resultSlotBytesTotalMax) {
        const allowed = `${limits.resultSlotCountMax} slots, ${limits.resultSlotBytesTotalMax} bytes together`;
        throw new DriveError('slotLimit', `output at ${offset}+${lengthBytes} of slot ${key}; there are ${allowed}`);
      }
      return;
    default:
      throw new DriveError('invalidField', `output kind ${kind}, allowed: ${Object.values(attendOutputs).join(', ')}`);
  }
}
