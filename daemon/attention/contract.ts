/** What the attention room offers: attend over stored sequences, on compute workers. */
import type { DeviceJob } from '../timing/device-job.ts';
import type { FloatType } from '../../spec/element-type.ts';

export interface AttendOptions {
  readonly causal: boolean;
  readonly statistics: boolean;
  readonly queryType: FloatType;
  readonly outputType: FloatType;
  /** 0: 1 / sqrt(headDimK). */
  readonly scale: number;
  readonly softCap: number;
  readonly slidingWindow: number;
  readonly sinkCount: number;
}

/** One sequence and layer. Offsets are in the arena. */
export interface AttendTarget {
  readonly sequenceId: bigint;
  readonly layer: number;
  readonly queryHeadsPerKvHead: number;
  readonly firstQueryHead: number;
  /** Resolved: never 0. */
  readonly queryHeadCount: number;
  readonly queryTokenCount: number;
  readonly queryPosition: number;
  readonly tokenStart: number;
  /** undefined: the length as it stands. */
  readonly tokenEnd: number | undefined;
  /** [queryTokenCount][queryHeadCount][headDimK] of queryType; 4-byte aligned. */
  readonly queryOffset: number;
  /** Room for outputSizeBytes; 4-byte aligned. */
  readonly outputOffset: number;
}

export interface AttendCounts {
  /** Tokens attended to (per layer entry, not per head), by where their K and V lay. */
  readonly flashTokenCount: number;
  readonly bufferedTokenCount: number;
  /** Flash pages walked. */
  readonly pageCount: number;
}

/** Bytes of one entry's output, statistics included. */
export function outputSizeBytes(
  rowCount: number,
  headDimV: number,
  elementSizeBytes: number,
  statistics: boolean,
): number {
  const rows = rowCount * headDimV * elementSizeBytes;
  return statistics ? Math.ceil(rows / 4) * 4 + rowCount * 8 : rows;
}

export interface AttentionEngine {
  /**
   * Plans every target at once, synchronously, before the first await: lengths are those at the call. Resolves when all
   * outputs are written. DriveError unknownSequence, layerRange, headRange, tokenRange (its `result` is the target's
   * index), unrecoveredRead (its `result` is the physical page).
   */
  attend(options: AttendOptions, targets: readonly AttendTarget[], job?: DeviceJob): Promise<AttendCounts>;
}
