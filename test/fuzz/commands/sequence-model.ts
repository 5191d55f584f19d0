/** Sequences as they should be: the rows of each layer as the drive stores them, token by token. */
import { elementTypes, type ElementType, elementTypeOf } from '../../../spec/element-type.ts';
import { rowSizeBytes } from '../../../spec/quantised-row.ts';
import { convert as convertRows, type MemoryViews } from '../../../daemon/kernels/reference/float-conversion.ts';

export interface Shape {
  readonly layerCount: number;
  readonly kvHeadCount: number;
  readonly headDimK: number;
  readonly headDimV: number;
  readonly elementTypeK: ElementType;
  readonly elementTypeV: ElementType;
  readonly groupTokens: number;
}

export class LayerModel {
  length = 0;
  /** Of NaNs that came of a conversion nobody knows the bits. */
  hasOddNumbers = false;
  /** [token][head][row], for K and for V. */
  #rows: [Uint8Array, Uint8Array] = [new Uint8Array(0), new Uint8Array(0)];
  readonly tokenBytes: readonly [number, number];

  constructor(tokenBytes: readonly [number, number]) {
    this.tokenBytes = tokenBytes;
  }

  /** Rows of so many tokens from `first` on. */
  rows(part: 0 | 1, first: number, count: number): Uint8Array {
    const bytes = this.tokenBytes[part];
    return this.#rows[part].subarray(first * bytes, (first + count) * bytes);
  }

  /** Adds tokens at the end. */
  add(rows: readonly [Uint8Array, Uint8Array], firstToken: number, count: number): void {
    for (const part of [0, 1] as const) {
      const bytes = this.tokenBytes[part];
      const end = (this.length + count) * bytes;
      if (this.#rows[part].length < end) {
        const grown = new Uint8Array(Math.max(256, 2 * end));
        grown.set(this.rows(part, 0, this.length));
        this.#rows[part] = grown;
      }
      this.#rows[part].set(rows[part].subarray(firstToken * bytes, (firstToken + count) * bytes), this.length * bytes);
    }
    this.length += count;
  }

  copyOf(count: number): LayerModel {
    const copy = new LayerModel(this.tokenBytes);
    copy.add([this.rows(0, 0, count), this.rows(1, 0, count)], 0, count);
    copy.hasOddNumbers = this.hasOddNumbers;
    return copy;
  }
}

export class SequenceModel {
  readonly id: bigint;
  readonly shape: Shape;
  readonly label: string;
  readonly leaseSeconds: number;
  readonly parentId: bigint;
  readonly layers: LayerModel[];
  /** The host that made it. */
  readonly owner: number;
  namedAtMs = 0;

  constructor(
    fields: Pick<SequenceModel, 'id' | 'shape' | 'label' | 'leaseSeconds' | 'parentId' | 'owner'>,
    layers?: LayerModel[],
  ) {
    const { shape } = fields;
    this.id = fields.id;
    this.shape = shape;
    this.label = fields.label;
    this.leaseSeconds = fields.leaseSeconds;
    this.parentId = fields.parentId;
    this.owner = fields.owner;
    const tokenBytes = [0, 1].map((part) => shape.kvHeadCount * rowBytesOf(shape, part as 0 | 1)) as [number, number];
    this.layers = layers ?? Array.from({ length: shape.layerCount }, () => new LayerModel(tokenBytes));
  }
}

export const typeOfPart = (shape: Shape, part: 0 | 1): ElementType =>
  part === 0 ? shape.elementTypeK : shape.elementTypeV;
export const dimOfPart = (shape: Shape, part: 0 | 1): number => (part === 0 ? shape.headDimK : shape.headDimV);
export const rowBytesOf = (shape: Shape, part: 0 | 1, type = typeOfPart(shape, part)): number =>
  rowSizeBytes(type, dimOfPart(shape, part));

/** Bytes that tokens take on the wire, K and V. */
export function transferBytes(
  shape: Shape,
  tokenCount: number,
  type: ElementType | undefined,
  heads = shape.kvHeadCount,
): number {
  const bytes = (part: 0 | 1): number => tokenCount * heads * rowBytesOf(shape, part, type ?? typeOfPart(shape, part));
  return bytes(0) + bytes(1);
}

/** The type of a code, and whether it is one: 0 means as stored. */
export const typeOfCode = (code: number): { type: ElementType | undefined; isKnown: boolean } => {
  const type = elementTypeOf(code);
  return { type, isKnown: code === 0 || type !== undefined };
};

/** Rows of `from` as `to`, one after the other. */
export function converted(
  rows: Uint8Array,
  from: ElementType,
  to: ElementType,
  rowCount: number,
  dim: number,
): Uint8Array {
  if (from === to) return rows;
  const target = Math.ceil(rows.length / 16) * 16;
  const views = viewsOver(new ArrayBuffer(Math.ceil((target + rowCount * rowSizeBytes(to, dim)) / 16) * 16));
  views.bytes.set(rows);
  convertRows(views, 0, elementTypes[from].code, target, elementTypes[to].code, rowCount, dim);
  return views.bytes.slice(target, target + rowCount * rowSizeBytes(to, dim));
}

const viewsOver = (buffer: ArrayBuffer): MemoryViews => ({
  bytes: new Uint8Array(buffer),
  u16: new Uint16Array(buffer),
  u32: new Uint32Array(buffer),
  f32: new Float32Array(buffer),
});

/** The numbers of rows, row by row. */
export function numbersOf(rows: Uint8Array, type: ElementType, rowCount: number, dim: number): Float32Array {
  const bytes = converted(rows.subarray(0, rowCount * rowSizeBytes(type, dim)), type, 'f32', rowCount, dim);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + rowCount * dim * 4));
}

/** [token][head] from whatever a transfer has. */
export function tokenMajor(
  rows: Uint8Array,
  tokens: number,
  heads: number,
  rowBytes: number,
  isHeadMajor: boolean,
): Uint8Array {
  if (!isHeadMajor) return rows;
  const target = new Uint8Array(tokens * heads * rowBytes);
  for (let head = 0; head < heads; head++) {
    for (let token = 0; token < tokens; token++) {
      const from = (head * tokens + token) * rowBytes;
      target.set(rows.subarray(from, from + rowBytes), (token * heads + head) * rowBytes);
    }
  }
  return target;
}
