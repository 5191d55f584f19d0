import * as lmdb from 'lmdb';
import { Packr } from 'msgpackr';
import { crc32c } from '../base/crc32c.ts';
import { DriveError } from '../base/errors.ts';
import type { MetaKey } from './contract.ts';

// Exported by lmdb-js, not declared.
const { bufferToKeyValue } = lmdb as unknown as { bufferToKeyValue(key: Buffer): unknown };

/** Whether values begin with a checksum: they don't in drives of format versions 1 and 2. */
export type ValueFormat = 'summed' | 'plain';

const SUM_BYTES = 4;

/** Values as they stand in a store's file. `path` names that file in errors; keys begin with the namespace. */
export class ValueCodec {
  readonly #path: string;
  readonly #format: ValueFormat;
  readonly #packr = new Packr({ useRecords: false });

  constructor(path: string, format: ValueFormat) {
    this.#path = path;
    this.#format = format;
  }

  encode(key: MetaKey, value: unknown): Buffer {
    const packed = this.#packr.pack(value);
    if (this.#format === 'plain') return packed;
    const bytes = Buffer.allocUnsafe(SUM_BYTES + packed.length);
    bytes.writeUInt32LE(sumOf(key, packed));
    bytes.set(packed, SUM_BYTES);
    return bytes;
  }

  /** DriveError mediaFormat if it is damaged. */
  decode(key: MetaKey, bytes: Buffer): unknown {
    this.check(key, bytes);
    return this.unpack(bytes);
  }

  /** DriveError mediaFormat if its checksum is wrong. */
  check(key: MetaKey, bytes: Buffer): void {
    if (this.#format === 'plain') return;
    const isRight = bytes.length >= SUM_BYTES && bytes.readUInt32LE() === sumOf(key, bytes.subarray(SUM_BYTES));
    if (isRight) return;
    throw new DriveError('mediaFormat', `${this.#path} is damaged: record ${key.join('/')} fails its checksum`);
  }

  /** A value that was checked before. DriveError mediaFormat if it can't be one all the same. */
  unpack(bytes: Buffer): unknown {
    try {
      return this.#packr.unpack(this.#format === 'plain' ? bytes : bytes.subarray(SUM_BYTES));
    } catch (error) {
      throw unreadable(this.#path, error);
    }
  }
}

/** Of the key too: a value belongs to one key only. */
const sumOf = (key: MetaKey, packed: Uint8Array): number => crc32c(packed, crc32c(Buffer.from(JSON.stringify(key))));

export const unreadable = (path: string, error: unknown): DriveError =>
  new DriveError('mediaFormat', `metadata in ${path}: ${(error as Error).message}`, { cause: error });

/** A key as it stands in the file. DriveError mediaFormat if it is none of ours. */
export function keyOf(path: string, bytes: Buffer): MetaKey {
  const key = decodedKey(bytes);
  const isKey =
    Array.isArray(key) &&
    typeof key[0] === 'number' &&
    key.every((part) => typeof part === 'number' || typeof part === 'string');
  if (isKey) return key;
  throw unreadable(path, new Error(`a key of no known kind, ${bytes.toString('hex')}`));
}

/** undefined if it can't be decoded: what decodes it throws whatever comes up. */
function decodedKey(bytes: Buffer): unknown {
  try {
    return bufferToKeyValue(bytes);
  } catch {
    return undefined;
  }
}
