import { elementTypes, type ElementType } from '../../spec/element-type.ts';
import { rowAlignmentBytes, rowSizeBytes } from '../../spec/quantised-row.ts';
import { assert } from '../base/assert.ts';
import type { AppendSource, SequenceShape } from './contract.ts';
import type { KvRoom } from './room.ts';
import type { Part, RowLayout } from './shape.ts';

/** Bytes that an append of `tokenCount` tokens carries: K rows, then V rows. */
export function sourceSizeBytes(
  shape: SequenceShape,
  tokenCount: number,
  elementType: ElementType | undefined,
): number {
  const rows = tokenCount * shape.kvHeadCount;
  return (
    rows * rowSizeBytes(elementType ?? shape.elementTypeK, shape.headDimK) +
    rows * rowSizeBytes(elementType ?? shape.elementTypeV, shape.headDimV)
  );
}

/** The rows that an append carries, as the sequence stores them: converted into scratch memory if the type differs. */
export class RowSource {
  readonly tokenCount: number;
  readonly headMajor: boolean;
  readonly #layout: RowLayout;
  readonly #room: KvRoom;
  readonly #base: [number, number] = [0, 0];
  readonly #scratch: number[] = [];

  /** Converts synchronously. DriveError bufferFull. Call `free` when done. */
  constructor(source: AppendSource, shape: SequenceShape, layout: RowLayout, tokenCount: number, room: KvRoom) {
    this.tokenCount = tokenCount;
    this.headMajor = source.headMajor;
    this.#layout = layout;
    this.#room = room;
    const types = [shape.elementTypeK, shape.elementTypeV] as const;
    const dims = [shape.headDimK, shape.headDimV] as const;
    let offset = source.offset;
    try {
      for (const part of [0, 1] as const) {
        const sourceType = source.elementType ?? types[part];
        const rowCount = tokenCount * shape.kvHeadCount;
        this.#base[part] = this.#stored(offset, sourceType, types[part], rowCount, dims[part]);
        offset += rowCount * rowSizeBytes(sourceType, dims[part]);
      }
    } catch (error) {
      this.free();
      throw error;
    }
  }

  #stored(
    offset: number,
    sourceType: ElementType,
    storedType: ElementType,
    rowCount: number,
    rowElements: number,
  ): number {
    if (sourceType === storedType) return offset;
    const sizeBytes = rowCount * rowSizeBytes(sourceType, rowElements);
    const aligned = offset % rowAlignmentBytes(sourceType) === 0 ? offset : this.#copy(offset, sizeBytes);
    const stored = this.#allocate(rowCount * rowSizeBytes(storedType, rowElements));
    const [from, to] = [elementTypes[sourceType].code, elementTypes[storedType].code];
    this.#room.kernels.convert(aligned, from, stored, to, rowCount, rowElements);
    return stored;
  }

  /** Kernels take rows at multiples of rowAlignmentBytes; a command's data may start anywhere. */
  #copy(offset: number, sizeBytes: number): number {
    const copy = this.#allocate(sizeBytes);
    this.#room.copy(copy, offset, sizeBytes);
    return copy;
  }

  #allocate(sizeBytes: number): number {
    const offset = this.#room.arena.allocate(sizeBytes);
    this.#scratch.push(offset);
    return offset;
  }

  free(): void {
    for (const offset of this.#scratch.splice(0)) this.#room.arena.free(offset);
  }

  /** Arena offset of one row. */
  #row(head: number, part: Part, token: number): number {
    const index = this.headMajor ? head * this.tokenCount + token : token * this.#layout.headCount + head;
    return this.#base[part] + index * this.#layout.rowBytes[part];
  }

  /** Offset of `count` rows that lie together, or undefined if they don't. */
  run(head: number, part: Part, firstToken: number, count: number): number | undefined {
    assert(firstToken + count <= this.tokenCount, `rows ${firstToken} + ${count} of ${this.tokenCount}`);
    return this.headMajor || this.#layout.headCount === 1 ? this.#row(head, part, firstToken) : undefined;
  }

  /** Copies rows of consecutive tokens of one head and part to `target`, one behind the other. */
  copyRows(head: number, part: Part, firstToken: number, count: number, target: number): void {
    const rowBytes = this.#layout.rowBytes[part];
    const run = this.run(head, part, firstToken, count);
    if (run !== undefined) {
      this.#room.copy(target, run, count * rowBytes);
      return;
    }
    const strideBytes = this.#layout.headCount * rowBytes;
    this.#room.kernels.gather(this.#row(head, part, firstToken), strideBytes, rowBytes, count, target);
  }

  /** Index (from 0) of the first of `count` rows that differs from those at `stored`, or `count` if none does. */
  firstDifference(head: number, part: Part, firstToken: number, count: number, stored: number): number {
    const rowBytes = this.#layout.rowBytes[part];
    const run = this.run(head, part, firstToken, count);
    if (run !== undefined && this.#room.isEqual(run, stored, count * rowBytes)) return count;
    for (let i = 0; i < count; i++) {
      if (!this.#room.isEqual(this.#row(head, part, firstToken + i), stored + i * rowBytes, rowBytes)) return i;
    }
    return count;
  }
}
