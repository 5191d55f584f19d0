import {
  ALL_TOKENS,
  attendEntry,
  attendFlags,
  attendHeader,
  attendModes,
  DESCRIPTOR_VERSION,
  type ElementType,
  elementSizeBytes,
  elementTypes,
  type FloatType,
  isQuantised,
  limits,
} from '../spec/index.ts';
import type { ElementArray } from './convert.ts';
import { elementView } from './convert.ts';
import type { Sequence } from './sequence.ts';

/** What holds for all entries of a request. */
export interface AttendOptions {
  /** Factor of the logits; default 1/sqrt(headDimK). */
  readonly scale?: number | undefined;
  /** Logits become softCap * tanh(logit / softCap); default none. */
  readonly softCap?: number | undefined;
  /** A query at position p sees tokens above p - slidingWindow only; default no window. */
  readonly slidingWindow?: number | undefined;
  /** The first `sinkCount` tokens stay visible in spite of the window. */
  readonly sinkCount?: number | undefined;
  /** Query token i sees tokens up to its own position, queryPosition + i, only. */
  readonly causal?: boolean | undefined;
  /** Return the maximum and the log-sum-exp of each row's logits. */
  readonly statistics?: boolean | undefined;
  /** Type of the queries; default f32. */
  readonly queryType?: FloatType | undefined;
  /** Type of the outputs; default f32. */
  readonly outputType?: FloatType | undefined;
  /** Return the command's device latency, and no number of buffered tokens. */
  readonly deviceTime?: boolean | undefined;
  /**
   * Type of carried keys and values; default as the sequences store them, or f32 if one of them quantises: the drive does
   * that.
   */
  readonly appendType?: FloatType | undefined;
}

/** One sequence and layer, as given when a request is prepared. */
export interface AttendEntryShape {
  readonly sequence: Sequence;
  /** May be changed later. */
  readonly layer?: number | undefined;
  /** Query heads per KV head: 1 is multi-head attention, all of them multi-query. */
  readonly queryHeadsPerKvHead: number;
  /** First query head of the queries; default 0. */
  readonly firstQueryHead?: number | undefined;
  /** Query heads of the queries; default all from `firstQueryHead`. */
  readonly queryHeadCount?: number | undefined;
  /** Query tokens at consecutive positions; default 1. */
  readonly queryTokenCount?: number | undefined;
  /** Position of the first query token; may be changed later. Needed with `causal` and `slidingWindow`. */
  readonly queryPosition?: number | undefined;
  /** Tokens [tokenStart, tokenEnd) to attend to; default all that the layer holds when the command is accepted. */
  readonly tokenStart?: number | undefined;
  readonly tokenEnd?: number | undefined;
  /** Tokens whose keys and values the command carries and appends first; default 0. */
  readonly appendTokenCount?: number | undefined;
  /** Where they go; may be changed later. */
  readonly appendPosition?: number | undefined;
}

const ALIGNMENT_BYTES = 64;
const align = (bytes: number): number => Math.ceil(bytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;

/** Byte sizes of one entry's parts, and where they lie. */
interface EntryPlan {
  readonly queryOffset: number;
  readonly queryElements: number;
  readonly appendOffset: number;
  readonly keyElements: number;
  readonly valueOffset: number;
  readonly valueElements: number;
  readonly appendTypeK: FloatType;
  readonly appendTypeV: FloatType;
  readonly outputOffset: number;
  readonly outputElements: number;
  readonly statisticsOffset: number;
  readonly rowCount: number;
}

export interface AttendLayout {
  /** Header, entries, queries, carried keys and values. */
  readonly dataBytes: number;
  /** Outputs and statistics: to the end of the last entry's. */
  readonly outputBytes: number;
  readonly rowCount: number;
  readonly entries: readonly EntryPlan[];
}

/** Of the whole command; undefined: as stored. */
function appendTypeOf(entries: readonly AttendEntryShape[], options: AttendOptions): FloatType | undefined {
  const carriesToQuantised = entries.some(
    ({ sequence: { shape }, appendTokenCount = 0 }) =>
      appendTokenCount > 0 && (isQuantised(shape.elementTypeK) || isQuantised(shape.elementTypeV)),
  );
  return options.appendType ?? (carriesToQuantised ? 'f32' : undefined);
}

/** Without tokens to carry it does not matter. */
const carriedType = (stored: ElementType, appendType: FloatType | undefined): FloatType =>
  appendType ?? (isQuantised(stored) ? 'f32' : stored);

/** Where everything of a request lies. RangeError if it can't be one command. */
export function planAttend(entries: readonly AttendEntryShape[], options: AttendOptions): AttendLayout {
  if (entries.length === 0 || entries.length > limits.attendEntryCountMax) {
    throw new RangeError(`${entries.length} entries; allowed: 1 to ${limits.attendEntryCountMax}`);
  }
  const { queryType = 'f32', outputType = 'f32' } = options;
  const appendType = appendTypeOf(entries, options);
  let dataBytes = align(attendHeader.sizeBytes + entries.length * attendEntry.sizeBytes);
  let outputBytes = 0;
  let rowCount = 0;
  const take = (bytes: number): number => {
    const at = dataBytes;
    dataBytes = align(dataBytes + bytes);
    return at;
  };
  const plans = entries.map((entry): EntryPlan => {
    const { kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV } = entry.sequence.shape;
    const heads = queryHeadCountOf(entry);
    const { queryTokenCount = 1, appendTokenCount = 0 } = entry;
    const rows = heads * queryTokenCount;
    checkRange('query tokens', queryTokenCount, 1, limits.queryTokenCountMax);
    checkRange('query heads', heads, 1, entry.queryHeadsPerKvHead * kvHeadCount);
    checkRange('appended tokens', appendTokenCount, 0, 0xffff);
    const appendTypeK = carriedType(elementTypeK, appendType);
    const appendTypeV = carriedType(elementTypeV, appendType);
    const keyElements = appendTokenCount * kvHeadCount * headDimK;
    const valueElements = appendTokenCount * kvHeadCount * headDimV;
    const queryElements = rows * headDimK;
    const outputElements = rows * headDimV;
    const queryOffset = take(queryElements * elementSizeBytes(queryType));
    const keyBytes = keyElements * elementSizeBytes(appendTypeK);
    const appendOffset = take(keyBytes + valueElements * elementSizeBytes(appendTypeV));
    const outputOffset = align(outputBytes);
    const outputEnd = outputOffset + outputElements * elementSizeBytes(outputType);
    const statisticsOffset = Math.ceil(outputEnd / 4) * 4;
    outputBytes = options.statistics === true ? statisticsOffset + 8 * rows : outputEnd;
    rowCount += rows;
    return {
      queryOffset,
      queryElements,
      appendOffset,
      keyElements,
      valueOffset: appendOffset + keyBytes,
      valueElements,
      appendTypeK,
      appendTypeV,
      outputOffset,
      outputElements,
      statisticsOffset,
      rowCount: rows,
    };
  });
  checkRange('query rows', rowCount, 1, limits.queryRowCountMax);
  return { dataBytes, outputBytes, rowCount, entries: plans };
}

export const queryHeadCountOf = (entry: AttendEntryShape): number =>
  entry.queryHeadCount ?? entry.queryHeadsPerKvHead * entry.sequence.shape.kvHeadCount - (entry.firstQueryHead ?? 0);

export interface AttendBuffers {
  readonly data: ArrayBuffer;
  readonly output: ArrayBuffer;
}

/**
 * One entry of a prepared request. Write queries (and carried keys and values) into its arrays, post the request, read
 * `output`. The arrays belong to the request: their content is replaced by every post.
 */
export class PreparedEntry {
  /** [queryTokenCount][queryHeadCount][headDimK]. */
  readonly queries: ElementArray;
  /** Carried keys, [appendTokenCount][kvHeadCount][headDimK]; empty if none are. */
  readonly keys: ElementArray;
  /** Carried values, [appendTokenCount][kvHeadCount][headDimV]. */
  readonly values: ElementArray;
  /** [queryTokenCount][queryHeadCount][headDimV]. */
  readonly output: ElementArray;
  /** [queryTokenCount][queryHeadCount] pairs {maximum, log-sum-exp}; empty unless asked for. */
  readonly statistics: Float32Array;
  readonly sequence: Sequence;
  readonly #descriptor: DataView;

  constructor(
    plan: EntryPlan,
    entry: AttendEntryShape,
    options: AttendOptions,
    place: AttendBuffers & { index: number },
  ) {
    const { data, output } = place;
    this.sequence = entry.sequence;
    this.queries = elementView(options.queryType ?? 'f32', data, plan.queryOffset, plan.queryElements);
    this.keys = elementView(plan.appendTypeK, data, plan.appendOffset, plan.keyElements);
    this.values = elementView(plan.appendTypeV, data, plan.valueOffset, plan.valueElements);
    this.output = elementView(options.outputType ?? 'f32', output, plan.outputOffset, plan.outputElements);
    this.statistics =
      options.statistics === true
        ? new Float32Array(output, plan.statisticsOffset, 2 * plan.rowCount)
        : new Float32Array(0);
    const at = attendHeader.sizeBytes + place.index * attendEntry.sizeBytes;
    this.#descriptor = new DataView(data, at, attendEntry.sizeBytes);
  }

  get layer(): number {
    return this.#descriptor.getUint16(attendEntry.offsetOf.layer, true);
  }
  set layer(layer: number) {
    checkRange('layer', layer, 0, 0xffff);
    this.#descriptor.setUint16(attendEntry.offsetOf.layer, layer, true);
  }

  /** Position of the first query token. */
  get queryPosition(): number {
    return this.#getU32(attendEntry.offsetOf.queryPosition);
  }
  set queryPosition(position: number) {
    this.#setU32('query position', attendEntry.offsetOf.queryPosition, position);
  }

  /** First token attended to. */
  set tokenStart(token: number) {
    this.#setU32('token start', attendEntry.offsetOf.tokenStart, token);
  }

  /** One past the last token attended to; ALL_TOKENS (the default): what the layer holds, carried tokens included. */
  set tokenEnd(token: number) {
    this.#setU32('token end', attendEntry.offsetOf.tokenEnd, token);
  }

  /** Where the carried keys and values go. */
  get appendPosition(): number {
    return this.#getU32(attendEntry.offsetOf.appendPosition);
  }
  set appendPosition(position: number) {
    this.#setU32('append position', attendEntry.offsetOf.appendPosition, position);
  }

  #getU32(offset: number): number {
    return this.#descriptor.getUint32(offset, true);
  }

  #setU32(what: string, offset: number, value: number): void {
    checkRange(what, value, 0, 0xffff_ffff);
    this.#descriptor.setUint32(offset, value, true);
  }
}

/** Where a request's outputs go: the same kind and key for all entries, offsets from `base` on. */
export interface OutputPlace {
  readonly outKind: number;
  readonly outKey: number;
  readonly base: number;
}

/** Writes header and entries into the request's data. */
export function encodeAttend(
  entries: readonly AttendEntryShape[],
  options: AttendOptions,
  layout: AttendLayout,
  place: OutputPlace,
  data: Uint8Array,
): void {
  const appendType = appendTypeOf(entries, options);
  attendHeader.encode(
    {
      version: DESCRIPTOR_VERSION,
      mode: attendModes.dense,
      flags:
        (options.causal === true ? attendFlags.causal : 0) |
        (options.statistics === true ? attendFlags.statistics : 0) |
        (options.deviceTime === true ? attendFlags.deviceTime : 0),
      entryCount: entries.length,
      queryType: elementTypes[options.queryType ?? 'f32'].code,
      outputType: elementTypes[options.outputType ?? 'f32'].code,
      scale: options.scale ?? 0,
      softCap: options.softCap ?? 0,
      slidingWindow: options.slidingWindow ?? 0,
      sinkCount: options.sinkCount ?? 0,
      appendType: appendType === undefined ? 0 : elementTypes[appendType].code,
    },
    data,
  );
  const needsPosition = options.causal === true || (options.slidingWindow ?? 0) > 0;
  entries.forEach((entry, index) => {
    const plan = layout.entries[index] as EntryPlan;
    const { appendTokenCount = 0, appendPosition = 0 } = entry;
    const queryPosition = entry.queryPosition ?? (appendTokenCount > 0 ? appendPosition : undefined);
    if (needsPosition && queryPosition === undefined) {
      throw new RangeError(`entry ${index} has no queryPosition, which causal and slidingWindow need`);
    }
    attendEntry.encode(
      {
        sequenceId: entry.sequence.id,
        layer: entry.layer ?? 0,
        queryHeadsPerKvHead: entry.queryHeadsPerKvHead,
        firstQueryHead: entry.firstQueryHead ?? 0,
        queryHeadCount: queryHeadCountOf(entry),
        queryTokenCount: entry.queryTokenCount ?? 1,
        appendTokenCount,
        queryPosition: queryPosition ?? 0,
        tokenStart: entry.tokenStart ?? 0,
        tokenEnd: entry.tokenEnd ?? ALL_TOKENS,
        appendPosition,
        queryOffset: plan.queryOffset,
        appendOffset: appendTokenCount > 0 ? plan.appendOffset : 0,
        outKind: place.outKind,
        outKey: place.outKey,
        outOffset: place.base + plan.outputOffset,
      },
      data,
      attendHeader.sizeBytes + index * attendEntry.sizeBytes,
    );
  });
}

function checkRange(what: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${what}: ${value}; allowed: ${min} to ${max}`);
  }
}
