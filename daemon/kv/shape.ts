/** A sequence's shape: what is allowed, and what follows from it about rows, pages and tail slabs. */
import { elementTypes } from '../../spec/element-type.ts';
import { limits } from '../../spec/limits.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { DriveError } from '../base/errors.ts';
import type { SequenceShape } from './contract.ts';

/** K rows are part 0, V rows part 1. */
export type Part = 0 | 1;

/** Sizes that every row copy needs, worked out once per sequence. Indexed by part where they differ. */
export interface RowLayout {
  readonly groupTokens: number;
  readonly headCount: number;
  /** One stream per KV head and part. */
  readonly streamCount: number;
  readonly rowBytes: readonly [number, number];
  /** Rows of a whole group. */
  readonly groupBytes: readonly [number, number];
  /** Bytes of a page that hold no token. */
  readonly paddingBytes: readonly [number, number];
  /** Bytes that one head's rows take in a tail slab. */
  readonly slabStride: readonly [number, number];
  readonly slabBytes: number;
}

const SLAB_ALIGNMENT_BYTES = 64;

function range(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new DriveError('invalidShape', `${name} is ${value}, allowed are ${min} to ${max}`);
  }
}

/**
 * Checks a shape against the limits and this drive's pages. `groupTokens` 0 becomes as many tokens as fill a page with
 * the wider of the K and V rows. DriveError invalidShape names the field, its value and what is allowed.
 */
export function resolveShape(request: SequenceShape, pageSizeBytes: number): SequenceShape {
  range('layerCount', request.layerCount, 1, limits.layerCountMax);
  range('kvHeadCount', request.kvHeadCount, 1, limits.kvHeadCountMax);
  range('headDimK', request.headDimK, limits.headDimMin, limits.headDimMax);
  range('headDimV', request.headDimV, limits.headDimMin, limits.headDimMax);
  for (const [name, type] of [
    ['elementTypeK', request.elementTypeK],
    ['elementTypeV', request.elementTypeV],
  ] as const) {
    if (!Object.hasOwn(elementTypes, type)) {
      throw new DriveError('invalidShape', `${name} is ${type}, allowed are ${Object.keys(elementTypes).join(', ')}`);
    }
  }
  const widest = Math.max(
    rowSizeBytes(request.elementTypeK, request.headDimK),
    rowSizeBytes(request.elementTypeV, request.headDimV),
  );
  const groupTokensMax = Math.floor(pageSizeBytes / widest);
  const { groupTokens } = request;
  if (!Number.isInteger(groupTokens) || groupTokens < 0 || groupTokens > groupTokensMax) {
    throw new DriveError(
      'invalidShape',
      `groupTokens is ${groupTokens}, allowed are 1 to ${groupTokensMax} (rows of ${widest} bytes in pages of ` +
        `${pageSizeBytes}), or 0 for ${groupTokensMax}`,
    );
  }
  return {
    layerCount: request.layerCount,
    kvHeadCount: request.kvHeadCount,
    headDimK: request.headDimK,
    headDimV: request.headDimV,
    elementTypeK: request.elementTypeK,
    elementTypeV: request.elementTypeV,
    groupTokens: groupTokens === 0 ? groupTokensMax : groupTokens,
  };
}

/** `shape` is resolved. */
export function rowLayoutOf(shape: SequenceShape, pageSizeBytes: number): RowLayout {
  const { groupTokens, kvHeadCount } = shape;
  const rowBytesK = rowSizeBytes(shape.elementTypeK, shape.headDimK);
  const rowBytesV = rowSizeBytes(shape.elementTypeV, shape.headDimV);
  const strideOf = (rowBytes: number): number =>
    Math.ceil((groupTokens * rowBytes) / SLAB_ALIGNMENT_BYTES) * SLAB_ALIGNMENT_BYTES;
  return {
    groupTokens,
    headCount: kvHeadCount,
    streamCount: kvHeadCount * 2,
    rowBytes: [rowBytesK, rowBytesV],
    groupBytes: [groupTokens * rowBytesK, groupTokens * rowBytesV],
    paddingBytes: [pageSizeBytes - groupTokens * rowBytesK, pageSizeBytes - groupTokens * rowBytesV],
    slabStride: [strideOf(rowBytesK), strideOf(rowBytesV)],
    slabBytes: kvHeadCount * (strideOf(rowBytesK) + strideOf(rowBytesV)),
  };
}
