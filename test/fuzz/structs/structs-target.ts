/**
 * Every structure of spec/: bytes of any kind, and bytes that mean something with a field or two changed.
 *
 * Whatever comes: decoding throws nothing and reads nothing behind the structure; what was decoded is encoded to the same
 * bytes but for what is reserved, and decoded from them to the same values; a reserved byte that is not zero is found.
 */
import assert from 'node:assert/strict';
import * as spec from '../../../spec/index.ts';
import type { Fields, FieldTable, Struct } from '../../../spec/struct.ts';
import { parseSgl, SGL_BYTES } from '../../../spec/sgl.ts';
import type { Prng } from '../../sim/prng.ts';
import { readSubmission } from '../commands/submission.ts';
import { mutateBytes, mutateStruct } from '../mutate.ts';
import type { Session, SessionContext, Target } from '../target.ts';

const isStruct = (value: unknown): value is Struct<Fields> =>
  typeof value === 'object' && value !== null && 'firstNonZeroReserved' in value;

const structs = Object.fromEntries(
  Object.entries(spec as Readonly<Record<string, unknown>>).filter((entry): entry is [string, Struct<Fields>] =>
    isStruct(entry[1]),
  ),
);
const names = Object.keys(structs);

export interface StructInput {
  readonly struct: string;
  readonly bytes: Uint8Array;
}

/** Bytes of a structure whose text is text and whose quantities are none that numbers can't hold. */
function drawBytes(random: Prng, { sizeBytes, fields }: Struct<Fields>): Uint8Array {
  const bytes = random.chance(0.3) ? new Uint8Array(sizeBytes) : random.bytes(sizeBytes);
  for (const { kind, offset, width } of Object.values<FieldTable>(fields)) {
    if (kind === 'reserved' && random.chance(0.95)) bytes.fill(0, offset, offset + width);
    if (kind === 'text') for (let i = offset; i < offset + width; i++) bytes[i]! &= 0x7f;
    if (kind === 'uint64') bytes.fill(0, offset + 6, offset + 8);
    if (kind === 'uint128') bytes.fill(0, offset + 6, offset + 16);
  }
  return bytes;
}

class StructSession implements Session<StructInput> {
  readonly #context: SessionContext;

  constructor(context: SessionContext) {
    this.#context = context;
  }

  draw(random: Prng): StructInput {
    const struct = random.pick(names);
    const bytes = drawBytes(random, structs[struct]!);
    if (random.chance(0.4)) mutateStruct(random, bytes, structs[struct]!);
    if (random.chance(0.1)) mutateBytes(random, bytes);
    return { struct, bytes };
  }

  play({ struct: name, bytes }: StructInput): void {
    const struct = structs[name]!;
    const stray = struct.firstNonZeroReserved(bytes);
    this.#context.tally.count(stray === undefined);
    assert.equal(stray, firstStray(struct, bytes), `${name}: the first reserved byte that is not zero`);
    // As it lies among other bytes.
    const around = new Uint8Array(bytes.length + 32).fill(0xee);
    around.set(bytes, 16);
    const value = struct.decode(around, 16);
    assert.deepEqual(struct.decode(bytes), value, `${name}: decoded where it lies`);
    checkBack(name, struct, bytes, value, this.#context.bug);
    if (name === 'submissionEntry') checkSgl(bytes);
  }

  close(): void {}
}

function firstStray({ fields, sizeBytes }: Struct<Fields>, bytes: Uint8Array): number | undefined {
  const reserved = new Uint8Array(sizeBytes);
  for (const { kind, offset, width } of Object.values<FieldTable>(fields)) {
    if (kind === 'reserved') reserved.fill(1, offset, offset + width);
  }
  const at = bytes.findIndex((byte, i) => byte !== 0 && reserved[i] === 1);
  return at < 0 ? undefined : at;
}

function checkBack(
  name: string,
  struct: Struct<Fields>,
  bytes: Uint8Array,
  value: Readonly<Record<string, unknown>>,
  bug: string | undefined,
): void {
  let encoded: Uint8Array;
  try {
    encoded = struct.encode(value as never);
  } catch (error) {
    // Quantities of 2^53 and more lose bits, and can't be written; text may be longer once it is UTF-8.
    assert.ok(error instanceof RangeError, `${name}: ${String(error)}`);
    return;
  }
  assert.deepEqual(struct.decode(encoded), value, `${name}: decoded from what it was encoded to`);
  for (const [field, { kind, offset, width }] of Object.entries<FieldTable>(struct.fields)) {
    if (kind === 'reserved' || kind === 'text' || kind === 'uint128' || kind === 'f32') continue;
    const isSame =
      Buffer.compare(encoded.subarray(offset, offset + width), bytes.subarray(offset, offset + width)) === 0;
    const isLost = bug === 'losesHighByte' && width > 2 && bytes[offset + width - 1] === 0xab;
    assert.ok(isSame && !isLost, `${name}.${field} is encoded as it was decoded`);
  }
}

/** Two readers of one descriptor. */
function checkSgl(entry: Uint8Array): void {
  const at = spec.submissionEntry.offsetOf.sgl;
  const parsed = parseSgl(entry, at);
  const { place, lengthBytes } = readSubmission(entry, entry.length);
  const isEmpty = entry.subarray(at, at + SGL_BYTES).every((byte) => byte === 0);
  if (parsed.ok) {
    assert.equal(parsed.value.kind, place.kind, 'kind of an SGL');
    if (parsed.value.kind !== 'none') assert.equal(parsed.value.length, lengthBytes, 'length of an SGL');
  } else assert.ok(!isEmpty, 'an empty descriptor is no data');
}

export const structsTarget: Target<StructInput> = {
  name: 'structs',
  what: 'every structure of spec/, decoded and encoded',
  framing: 'nothing that is reserved is set',
  share: 20,
  casesPerSession: 5000,
  smokeCases: 20_000,
  bugs: { losesHighByte: 'a field whose highest byte is ABh is not written as it was read' },
  open: (context) => new StructSession(context),
};
