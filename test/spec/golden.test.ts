import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as spec from '../../spec/index.ts';
import type { Fields, Struct } from '../../spec/struct.ts';

/**
 * Vectors: fields of a structure and the bytes that they are. `hex` lists "@offset bytes"; bytes not listed are zero.
 * 64-bit opaque values are hex text, raw bytes are hex. Those with a name of their own were laid by hand from the NVMe
 * field tables, not by our encoder. A vector never changes once released: a change means that the wire changed.
 */
interface Vector {
  readonly struct: string;
  readonly example: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly hex: readonly string[];
}

const folder = new URL('../../../test/spec/golden/', import.meta.url);
const vectors = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .flatMap((name) => JSON.parse(readFileSync(new URL(name, folder), 'utf8')) as Vector[]);

const isStruct = (value: unknown): value is Struct<Fields> =>
  typeof value === 'object' && value !== null && 'sizeBytes' in value && 'decode' in value;
const structs = new Map<string, Struct<Fields>>(
  Object.entries(spec).filter((entry): entry is [string, never] => isStruct(entry[1])),
);

function laid(hex: readonly string[], sizeBytes: number): Uint8Array {
  const target = new Uint8Array(sizeBytes);
  for (const run of hex) {
    const [at, bytes] = run.split(' ');
    target.set(Buffer.from(bytes ?? '', 'hex'), Number(at?.slice(1)));
  }
  return target;
}

function fieldValue(kind: string | undefined, width: number, stored: unknown): unknown {
  if (kind === 'u64') return BigInt(stored as string);
  if (kind !== 'bytes') return stored;
  return Array.isArray(stored) ? laid(stored as string[], width) : new Uint8Array(Buffer.from(stored as string, 'hex'));
}

for (const vector of vectors) {
  test(`golden ${vector.struct}: ${vector.example}`, () => {
    const struct = structs.get(vector.struct);
    assert(struct, `no structure ${vector.struct} in spec/index.ts`);
    const value: Record<string, unknown> = {};
    for (const [key, stored] of Object.entries(vector.fields)) {
      assert(struct.fields[key], `${vector.struct} has no field ${key}`);
      value[key] = fieldValue(struct.fields[key]?.kind, struct.fields[key]?.width ?? 0, stored);
    }
    const wanted = laid(vector.hex, struct.sizeBytes);
    assert.equal(Buffer.from(struct.encode(value as never)).toString('hex'), Buffer.from(wanted).toString('hex'));

    const decoded = struct.decode(wanted) as Record<string, unknown>;
    for (const [key, expected] of Object.entries(value)) assert.deepEqual(decoded[key], expected, key);
    if (vector.example !== 'every field filled') return;
    const unfilled = Object.keys(decoded).filter((key) => !(key in vector.fields));
    assert.deepEqual(unfilled, [], 'fields that the vector leaves out');
  });
}

test('every structure of the public contract has a vector that fills all of it', () => {
  const filled = new Set(vectors.filter((v) => v.example === 'every field filled').map((v) => v.struct));
  assert.deepEqual(
    [...structs.keys()].filter((name) => !filled.has(name)),
    [],
  );
});
