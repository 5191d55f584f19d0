import type { FloatType } from '../spec/index.ts';
import { limits } from '../spec/index.ts';
import { type AttendEntryShape, type AttendOptions, planAttend, queryHeadCountOf } from './attend-layout.ts';
import type { CommandOptions } from './command.ts';
import { type ElementArray, resolveFloatType } from './convert.ts';
import type { AttendPath, PreparedAttend } from './prepared-attend.ts';

/** One sequence and layer of a one-shot attend. */
export interface AttendEntry extends Omit<AttendEntryShape, 'appendTokenCount' | 'queryTokenCount' | 'layer'> {
  readonly layer: number;
  /** [queryTokenCount][queryHeadCount][headDimK]; tells how many query tokens there are. */
  readonly queries: ElementArray;
  /** Keys and values of new tokens to append first, [token][kvHead][dimension]. */
  readonly append?:
    | { readonly position: number; readonly keys: ElementArray; readonly values: ElementArray }
    | undefined;
}

export interface AttendResult {
  /** [queryTokenCount][queryHeadCount][headDimV] of the output type. */
  readonly output: ElementArray;
  /** [queryTokenCount][queryHeadCount] pairs {maximum, log-sum-exp}; empty unless asked for. */
  readonly statistics: Float32Array;
}

export type OneShotOptions = AttendOptions & CommandOptions & { readonly path?: AttendPath | undefined };

type Prepare = (
  entries: readonly AttendEntryShape[],
  options: AttendOptions & { path?: AttendPath | undefined },
) => Promise<PreparedAttend>;

/** Attends once over any number of entries: as many commands as needed, one after the other in entry order. */
export async function attendOnce(
  entries: readonly AttendEntry[],
  options: OneShotOptions,
  limit: { readonly bytesMax: number },
  prepare: Prepare,
): Promise<AttendResult[]> {
  const typed = { ...options, ...resolveTypes(entries, options) };
  const results: AttendResult[] = [];
  for (const batch of cutBatches(entries, typed, limit.bytesMax)) {
    const request = await prepare(batch.map(shapeOf), typed);
    try {
      request.entries.forEach((prepared, index) => {
        const { queries, append } = batch[index] as AttendEntry;
        prepared.queries.set(queries);
        if (append === undefined) return;
        prepared.keys.set(append.keys);
        prepared.values.set(append.values);
      });
      await request.post(options);
      results.push(...request.entries.map(({ output, statistics }) => ({ output, statistics })));
    } finally {
      request.release();
    }
  }
  return results;
}

function shapeOf(entry: AttendEntry): AttendEntryShape {
  const { queries, append, ...rest } = entry;
  const { headDimK, headDimV, kvHeadCount } = entry.sequence.shape;
  const perToken = queryHeadCountOf(entry) * headDimK;
  const queryTokenCount = queries.length / perToken;
  if (!Number.isInteger(queryTokenCount) || queryTokenCount < 1) {
    throw new RangeError(`${queries.length} query elements are not whole tokens of ${perToken}`);
  }
  if (append === undefined) return { ...rest, queryTokenCount };
  const appendTokenCount = append.keys.length / (kvHeadCount * headDimK);
  if (!Number.isInteger(appendTokenCount) || append.values.length !== appendTokenCount * kvHeadCount * headDimV) {
    throw new RangeError(`${append.keys.length} key and ${append.values.length} value elements are not whole tokens`);
  }
  return { ...rest, queryTokenCount, appendTokenCount, appendPosition: append.position };
}

/** Types hold for a whole command, so all entries must agree. */
function resolveTypes(entries: readonly AttendEntry[], options: AttendOptions) {
  let queryType: FloatType | undefined;
  let appendType: FloatType | undefined;
  for (const { queries, append, sequence } of entries) {
    queryType = agree('queries', queryType, resolveFloatType('queries', queries, options.queryType, 'f16'));
    if (append === undefined) continue;
    const { elementTypeK, elementTypeV } = sequence.shape;
    const typeK = resolveFloatType('keys', append.keys, options.appendType, elementTypeK);
    const typeV = resolveFloatType('values', append.values, options.appendType, elementTypeV);
    appendType = agree('carried keys and values', appendType, agree('carried keys and values', typeK, typeV));
  }
  return { queryType: queryType ?? 'f32', ...(appendType === undefined ? {} : { appendType }) };
}

function agree(what: string, first: FloatType | undefined, second: FloatType): FloatType {
  if (first !== undefined && first !== second) throw new TypeError(`${what} of one call are ${first} and ${second}`);
  return second;
}

/** As many entries at a time as one command takes. */
function cutBatches(entries: readonly AttendEntry[], options: AttendOptions, bytesMax: number): AttendEntry[][] {
  const batches: AttendEntry[][] = [];
  let batch: AttendEntry[] = [];
  let bytes = 0;
  let rows = 0;
  for (const entry of entries) {
    const { dataBytes, outputBytes, rowCount } = planAttend([shapeOf(entry)], options);
    const full = bytes + dataBytes + outputBytes > bytesMax || rows + rowCount > limits.queryRowCountMax;
    if (batch.length > 0 && (full || batch.length === limits.attendEntryCountMax)) {
      batches.push(batch);
      batch = [];
      bytes = 0;
      rows = 0;
    }
    batch.push(entry);
    bytes += dataBytes + outputBytes;
    rows += rowCount;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}
