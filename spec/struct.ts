/**
 * Fixed little-endian structures as tables.
 *
 * A table names every byte of a structure: name, offset, width, meaning; bytes that mean nothing are named too
 * (`reserved`). Defining a table proves it: fields in order, no overlap, no gap, exact total size; a table that is
 * wrong stops the program when it is loaded, not when the first peer sends something odd.
 */

/**
 * - `u8` `u16` `u32` `f32`: numbers.
 * - `u24`: a 24-bit number (lengths in keyed SGL descriptors).
 * - `u64`: an opaque 64-bit value, a `bigint`.
 * - `uint64`: a 64-bit quantity that arithmetic follows on, a `number`. Values of 2^53 and above lose low bits when
 *   decoded but stay at or above 2^53, so every range check still refuses them.
 * - `uint128`: the same for the 128-bit counters of NVMe log pages; what we write always fits 53 bits.
 * - `text`: UTF-8, padded with `pad` (0 by default; NVMe pads ASCII with spaces).
 * - `bytes`: raw. `reserved`: must be zero; decoded by nobody, checked by `firstNonZeroReserved`.
 */
export type FieldKind =
  | 'u8'
  | 'u16'
  | 'u24'
  | 'u32'
  | 'u64'
  | 'uint64'
  | 'uint128'
  | 'f32'
  | 'bytes'
  | 'text'
  | 'reserved';

export interface FieldTable {
  readonly kind: FieldKind;
  readonly offset: number;
  readonly width: number;
  readonly meaning: string;
  /** Padding byte of `text`: 0x00 or 0x20. */
  readonly pad?: number;
}

interface ValueOf {
  u8: number;
  u16: number;
  u24: number;
  u32: number;
  f32: number;
  uint64: number;
  uint128: number;
  u64: bigint;
  bytes: Uint8Array;
  text: string;
}

export type Fields = Readonly<Record<string, FieldTable>>;

/** The plain object that a structure decodes to; reserved fields are left out. */
export type StructValue<F extends Fields> = {
  -readonly [K in keyof F as F[K]['kind'] extends 'reserved' ? never : K]: F[K]['kind'] extends keyof ValueOf
    ? ValueOf[F[K]['kind']]
    : never;
};

const fixedWidths: Partial<Record<FieldKind, number>> = {
  u8: 1,
  u16: 2,
  u24: 3,
  u32: 4,
  f32: 4,
  u64: 8,
  uint64: 8,
  uint128: 16,
};

const scalar =
  <K extends FieldKind>(kind: K) =>
  (offset: number, meaning: string) => ({ kind, offset, width: fixedWidths[kind] ?? 0, meaning });

export const u8 = scalar('u8');
export const u16 = scalar('u16');
export const u24 = scalar('u24');
export const u32 = scalar('u32');
export const f32 = scalar('f32');
export const u64 = scalar('u64');
export const uint64 = scalar('uint64');
export const uint128 = scalar('uint128');
export const bytes = (offset: number, width: number, meaning: string) => ({
  kind: 'bytes' as const,
  offset,
  width,
  meaning,
});
export const text = (offset: number, width: number, meaning: string, pad = 0) => ({
  kind: 'text' as const,
  offset,
  width,
  meaning,
  pad,
});
export const reserved = (offset: number, width: number) => ({
  kind: 'reserved' as const,
  offset,
  width,
  meaning: 'reserved, zero',
});

export interface Struct<F extends Fields> {
  readonly name: string;
  readonly sizeBytes: number;
  readonly fields: F;
  /** Byte offset of each field, for code that touches single fields on a hot path. */
  readonly offsetOf: { readonly [K in keyof F]: number };
  decode(source: Uint8Array, at?: number): StructValue<F>;
  /** Fields left out are written as zero (text as padding). Throws RangeError if a value doesn't fit its field. */
  encode(value: Partial<StructValue<F>>, target?: Uint8Array, at?: number): Uint8Array;
  /** Name and offset of the first reserved byte that isn't zero, or undefined. */
  firstNonZeroReserved(source: Uint8Array, at?: number): number | undefined;
}

/** Defines a structure. Throws at load if the table doesn't cover exactly `sizeBytes`, each byte once, in order. */
export function defineStruct<const F extends Fields>(name: string, sizeBytes: number, fields: F): Struct<F> {
  checkTable(name, sizeBytes, fields);
  const entries = Object.entries<FieldTable>(fields);
  const offsetOf = Object.fromEntries(entries.map(([key, field]) => [key, field.offset]));
  const readers = entries
    .filter(([, field]) => field.kind !== 'reserved')
    .map(([key, field]) => ({ key, read: readerOf(field) }));
  const writers = entries.map(([key, field]) => ({ key, write: writerOf(field, `${name}.${key}`) }));
  return {
    name,
    sizeBytes,
    fields,
    offsetOf: offsetOf as { readonly [K in keyof F]: number },
    decode(source, at = 0) {
      const view = viewOf(source, at, sizeBytes, name);
      const value: Record<string, unknown> = {};
      for (const { key, read } of readers) value[key] = read(view);
      return value as StructValue<F>;
    },
    encode(value, target = new Uint8Array(sizeBytes), at = 0) {
      const view = viewOf(target, at, sizeBytes, name);
      for (const { key, write } of writers) write(view, (value as Record<string, unknown>)[key]);
      return target;
    },
    firstNonZeroReserved(source, at = 0) {
      for (const [, field] of entries) {
        if (field.kind !== 'reserved') continue;
        for (let i = field.offset; i < field.offset + field.width; i++) {
          if (source[at + i] !== 0) return i;
        }
      }
      return undefined;
    },
  };
}

function checkTable(name: string, sizeBytes: number, fields: Fields): void {
  let next = 0;
  for (const [key, field] of Object.entries(fields)) {
    if (field.offset !== next) {
      throw new Error(`struct ${name}: field ${key} is at ${field.offset}, expected ${next} (gap or overlap)`);
    }
    if (field.width <= 0) throw new Error(`struct ${name}: field ${key} has width ${field.width}`);
    next = field.offset + field.width;
  }
  if (next !== sizeBytes) throw new Error(`struct ${name}: fields cover ${next} bytes of ${sizeBytes}`);
}

function viewOf(source: Uint8Array, at: number, sizeBytes: number, name: string): DataView {
  if (at + sizeBytes > source.byteLength) {
    throw new RangeError(`${name}: ${source.byteLength - at} bytes where ${sizeBytes} are needed`);
  }
  return new DataView(source.buffer, source.byteOffset + at, sizeBytes);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

const quantity = (view: DataView, offset: number): number =>
  view.getUint32(offset + 4, true) * 0x1_0000_0000 + view.getUint32(offset, true);

function readerOf({ kind, offset, width, pad }: FieldTable): (view: DataView) => unknown {
  switch (kind) {
    case 'u8':
      return (view) => view.getUint8(offset);
    case 'u16':
      return (view) => view.getUint16(offset, true);
    case 'u24':
      return (view) => view.getUint16(offset, true) + view.getUint8(offset + 2) * 0x1_0000;
    case 'u32':
      return (view) => view.getUint32(offset, true);
    case 'f32':
      return (view) => view.getFloat32(offset, true);
    case 'u64':
      return (view) => view.getBigUint64(offset, true);
    case 'uint64':
      return (view) => quantity(view, offset);
    case 'uint128':
      return (view) => quantity(view, offset + 8) * 2 ** 64 + quantity(view, offset);
    case 'bytes':
      return (view) => new Uint8Array(view.buffer, view.byteOffset + offset, width).slice();
    case 'text':
      return (view) => {
        const raw = new Uint8Array(view.buffer, view.byteOffset + offset, width).slice();
        let end = width;
        while (end > 0 && (raw[end - 1] === 0 || raw[end - 1] === pad)) end--;
        return decoder.decode(raw.subarray(0, end));
      };
    case 'reserved':
      return () => undefined;
  }
}

/** `undefined` is written as zero (text as padding). */
function writerOf(field: FieldTable, label: string): (view: DataView, value: unknown) => void {
  const { kind, offset, width, pad = 0 } = field;
  switch (kind) {
    case 'bytes':
    case 'text':
    case 'reserved':
      return (view, value) => {
        const target = new Uint8Array(view.buffer, view.byteOffset + offset, width);
        target.fill(kind === 'text' ? pad : 0);
        if (value === undefined || kind === 'reserved') return;
        const raw = kind === 'text' ? encoder.encode(value as string) : (value as Uint8Array);
        if (raw.length > width) throw new RangeError(`${label}: ${raw.length} bytes do not fit ${width}`);
        target.set(raw);
      };
    case 'u64':
      return (view, value = 0n) => {
        const opaque = value as bigint;
        if (opaque < 0n || opaque > 0xffff_ffff_ffff_ffffn) {
          throw new RangeError(`${label}: ${opaque} is not an integer from 0 to 2^64 - 1`);
        }
        view.setBigUint64(offset, opaque, true);
      };
    case 'f32':
      return (view, value = 0) => view.setFloat32(offset, value as number, true);
    default:
      return integerWriter(kind, offset, label);
  }
}

type IntegerKind = Exclude<FieldKind, 'bytes' | 'text' | 'reserved' | 'u64' | 'f32'>;

function integerWriter(kind: IntegerKind, offset: number, label: string): (view: DataView, value: unknown) => void {
  const limit = kind === 'uint64' || kind === 'uint128' ? Number.MAX_SAFE_INTEGER : 2 ** (8 * fixedWidths[kind]!) - 1;
  const write = integerSetter(kind, offset);
  return (view, given = 0) => {
    const value = given as number;
    if (!Number.isInteger(value) || value < 0 || value > limit) {
      throw new RangeError(`${label}: ${value} is not an integer from 0 to ${limit}`);
    }
    write(view, value);
  };
}

function integerSetter(kind: IntegerKind, offset: number): (view: DataView, value: number) => void {
  switch (kind) {
    case 'u8':
      return (view, value) => view.setUint8(offset, value);
    case 'u16':
      return (view, value) => view.setUint16(offset, value, true);
    case 'u24':
      return (view, value) => {
        view.setUint16(offset, value & 0xffff, true);
        view.setUint8(offset + 2, value >>> 16);
      };
    case 'u32':
      return (view, value) => view.setUint32(offset, value, true);
    case 'uint64':
      return (view, value) => setQuantity(view, offset, value);
    case 'uint128':
      return (view, value) => {
        setQuantity(view, offset, value);
        view.setBigUint64(offset + 8, 0n, true);
      };
  }
}

function setQuantity(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % 0x1_0000_0000, true);
  view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
}
