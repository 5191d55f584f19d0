/** Bit fields of a command dword or a property, as tables: shift, width, meaning. */
export interface BitField {
  readonly shift: number;
  readonly width: number;
  readonly meaning: string;
}

export type BitFields = Readonly<Record<string, BitField>>;
export type BitValues<T extends BitFields> = { readonly [K in keyof T]: number };

/** Packs into 32 bits; fields left out are 0. Throws RangeError if a value doesn't fit its field. */
export function packBits<T extends BitFields>(table: T, values: Partial<BitValues<T>>): number {
  return Number(packBits64(table, values) & 0xffff_ffffn);
}

export function unpackBits<T extends BitFields>(table: T, word: number): BitValues<T> {
  return unpackBits64(table, BigInt(word >>> 0));
}

/** As packBits, for a 64-bit property. */
export function packBits64<T extends BitFields>(table: T, values: Partial<BitValues<T>>): bigint {
  let word = 0n;
  for (const [name, field] of Object.entries(table)) {
    const value = values[name] ?? 0;
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** field.width) {
      throw new RangeError(`${name}: ${value} does not fit ${field.width} bits`);
    }
    word |= BigInt(value) << BigInt(field.shift);
  }
  return word;
}

export function unpackBits64<T extends BitFields>(table: T, word: bigint): BitValues<T> {
  const values: Record<string, number> = {};
  for (const [name, field] of Object.entries(table)) {
    values[name] = Number((word >> BigInt(field.shift)) & ((1n << BigInt(field.width)) - 1n));
  }
  return values as BitValues<T>;
}

/** The bits of `word` that no field covers: reserved bits that should have been zero. */
export function strayBits(table: BitFields, word: number): number {
  let covered = 0n;
  for (const field of Object.values(table)) covered |= ((1n << BigInt(field.width)) - 1n) << BigInt(field.shift);
  return Number(BigInt(word >>> 0) & ~covered & 0xffff_ffffn);
}
