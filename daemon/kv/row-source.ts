import { elementTypes, type ElementType } from '../../spec/element-type.ts';
import { rowAlignmentBytes, rowSizeBytes } from '../../spec/quantised-row.ts';
import { assert } from '../base/assert.ts';
import { NO_REGION } from '../kernels/contract.ts';
import type { AppendSource, HostRows, SequenceShape } from './contract.ts';
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

/**
 * The rows that an append carries, as the sequence stores them. They stay where they are, in a host's memory too, where
 * kernels can read them there; if not, they are copied into scratch memory, and converted if the type differs.
 */
export class RowSource {
  readonly tokenCount: number;
  readonly #source: AppendSource;
  readonly #layout: RowLayout;
  readonly #room: KvRoom;
  readonly #partBytes: readonly [number, number];
  #base: [number, number];
  readonly #scratch: number[] = [];
  /** The host's memory, as long as rows are read there. */
  #host: HostRows | undefined;

  /** Converts synchronously. DriveError bufferFull, or what reading the host's memory comes to. Call `free` when done. */
  constructor(source: AppendSource, shape: SequenceShape, layout: RowLayout, tokenCount: number, room: KvRoom) {
    this.tokenCount = tokenCount;
    this.#source = source;
    this.#layout = layout;
    this.#room = room;
    this.#host = source.host;
    const { elementTypeK, elementTypeV, headDimK, headDimV } = shape;
    const rowCount = tokenCount * shape.kvHeadCount;
    const [typeK, typeV] = [source.elementType ?? elementTypeK, source.elementType ?? elementTypeV];
    const keyBytes = rowCount * rowSizeBytes(typeK, headDimK);
    this.#partBytes = [keyBytes, rowCount * rowSizeBytes(typeV, headDimV)];
    this.#base = [source.offset, source.valuesOffset ?? source.offset + keyBytes];
    const isStored = typeK === elementTypeK && typeV === elementTypeV;
    if (isStored && (source.host === undefined || (room.kernels.canReadRegions && source.host.mapping !== undefined)))
      return;
    try {
      this.load();
      this.#base[0] = this.#stored(this.#base[0], typeK, elementTypeK, rowCount, headDimK);
      this.#base[1] = this.#stored(this.#base[1], typeV, elementTypeV, rowCount, headDimV);
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

  /**
   * Copies what is still in a host's memory: from here on the rows don't change, and can be read by anybody. DriveError
   * bufferFull, or what reading comes to.
   */
  load(): void {
    const host = this.#host;
    if (host === undefined) return;
    const [keyBytes, valueBytes] = this.#partBytes;
    const copy = this.#allocate(keyBytes + valueBytes);
    host.read(this.#base[0], this.#room.arena.view(copy, keyBytes));
    host.read(this.#base[1], this.#room.arena.view(copy + keyBytes, valueBytes));
    this.#host = undefined;
    this.#base = [copy, copy + keyBytes];
  }

  free(): void {
    for (const offset of this.#scratch.splice(0)) this.#room.arena.free(offset);
  }

  /** Whether the rows are in a host's memory, so that they may change or vanish. */
  get isForeign(): boolean {
    return this.#host !== undefined;
  }

  /** Where the rows are, for an assembleJob; only until `load`. */
  place(): { keys: number; values: number; region: number; headMajor: number; tokenCount: number } {
    return {
      keys: this.#base[0],
      values: this.#base[1],
      region: this.#host?.mapping ?? NO_REGION,
      headMajor: this.#source.headMajor ? 1 : 0,
      tokenCount: this.tokenCount,
    };
  }

  #row(head: number, part: Part, token: number): number {
    const index = this.#source.headMajor ? head * this.tokenCount + token : token * this.#layout.headCount + head;
    return this.#base[part] + index * this.#layout.rowBytes[part];
  }

  /** Copies rows of consecutive tokens of one head and part to `target`, one behind the other. DriveError as `load`. */
  copyRows(head: number, part: Part, firstToken: number, count: number, target: number): void {
    const { rowBytes, headCount } = this.#layout;
    const bytes = rowBytes[part];
    const strideBytes = this.#source.headMajor ? bytes : headCount * bytes;
    const { kernels } = this.#room;
    const gather = (): boolean =>
      kernels.gather(this.#row(head, part, firstToken), strideBytes, bytes, count, target, this.#host?.mapping);
    if (gather()) return;
    this.load();
    gather();
  }

  /**
   * Index (from 0) of the first of `count` rows that differs from those at `stored`, or `count` if none does. Only once the
   * rows are loaded.
   */
  firstDifference(head: number, part: Part, firstToken: number, count: number, stored: number): number {
    assert(!this.isForeign, 'rows that are compared do not change');
    const rowBytes = this.#layout.rowBytes[part];
    if (this.#source.headMajor || this.#layout.headCount === 1) {
      const rows = this.#row(head, part, firstToken);
      if (this.#room.isEqual(rows, stored, count * rowBytes)) return count;
    }
    for (let i = 0; i < count; i++) {
      if (!this.#room.isEqual(this.#row(head, part, firstToken + i), stored + i * rowBytes, rowBytes)) return i;
    }
    return count;
  }
}
