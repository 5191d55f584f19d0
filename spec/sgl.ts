/**
 * SGL descriptors (NVMe base specification, "Scatter Gather List"). A command carries exactly one: data in the capsule,
 * data that moves by R2T/H2CData/C2HData, or a memory region of the drive named by key.
 */
import type { ErrorCode } from './errors.ts';
import { defineStruct, reserved, u8, u24, u32, uint64 } from './struct.ts';

export const SGL_BYTES = 16;
/** PSDT of a Fabrics submission entry, in its flags byte: SGLs are used. */
export const SGL_FLAGS = 0x40;

/** Byte 15: type in bits 7:4, subtype in bits 3:0. */
export const sglTypes = {
  /** Data block, subtype offset: data in the capsule, `offset` bytes after its start. */
  inCapsule: 0x01,
  /** Keyed data block, subtype address: `offset` bytes into the memory region `key`. */
  keyed: 0x40,
  /** Transport data block: data moves in data PDUs. */
  transport: 0x5a,
} as const;

/** Types 0 and 5, and any type whose meaning isn't known yet. */
export const sglDescriptor = defineStruct('SGL descriptor', SGL_BYTES, {
  offset: uint64(0, 'in-capsule: offset of the data; transport: 0'),
  length: u32(8, 'bytes'),
  reserved0: reserved(12, 3),
  type: u8(15, 'sglTypes'),
});

export const keyedSglDescriptor = defineStruct('keyed SGL descriptor', SGL_BYTES, {
  offset: uint64(0, 'byte offset in the memory region'),
  length: u24(8, 'bytes'),
  key: u32(11, 'key of the memory region'),
  type: u8(15, 'sglTypes.keyed'),
});

export type Sgl =
  | { readonly kind: 'none' }
  | { readonly kind: 'inCapsule'; readonly offset: number; readonly length: number }
  | { readonly kind: 'transport'; readonly length: number }
  | { readonly kind: 'keyed'; readonly key: number; readonly offset: number; readonly length: number };

export type SglResult =
  | { readonly ok: true; readonly value: Sgl }
  | { readonly ok: false; readonly error: ErrorCode; readonly field: number };

const refuse = (error: ErrorCode, field: number): SglResult => ({ ok: false, error, field });

/**
 * Parses a descriptor. Sixteen zero bytes, and a descriptor of length 0 of any known type, are kind `none`: the command
 * has no data. Does not check a range against the capsule or the region: its receiver knows those.
 * `field` is the byte offset of what was wrong, within the descriptor.
 */
export function parseSgl(source: Uint8Array, at = 0): SglResult {
  const type = source[at + 15];
  switch (type) {
    case 0x00:
      // An address in host memory means nothing over a socket; only the empty one is a way to say "no data".
      for (let i = 0; i < SGL_BYTES; i++) if (source[at + i] !== 0) return refuse('sglType', 15);
      return { ok: true, value: { kind: 'none' } };
    case sglTypes.keyed: {
      const { key, offset, length } = keyedSglDescriptor.decode(source, at);
      if (length === 0) return { ok: true, value: { kind: 'none' } };
      if (key === 0) return refuse('sglDataBlock', 11);
      return { ok: true, value: { kind: 'keyed', key, offset, length } };
    }
    case sglTypes.inCapsule:
    case sglTypes.transport: {
      const stray = sglDescriptor.firstNonZeroReserved(source, at);
      if (stray !== undefined) return refuse('sglInvalid', stray);
      const { offset, length } = sglDescriptor.decode(source, at);
      if (length === 0) return { ok: true, value: { kind: 'none' } };
      if (type === sglTypes.inCapsule) return { ok: true, value: { kind: 'inCapsule', offset, length } };
      // The address of a transport descriptor is reserved; Linux sends zero, others the host's own address: not ours.
      return { ok: true, value: { kind: 'transport', length } };
    }
    default:
      return refuse('sglType', 15);
  }
}

/** Writes a descriptor. `none` is a transport descriptor of length 0. */
export function encodeSgl(sgl: Sgl, target: Uint8Array = new Uint8Array(SGL_BYTES), at = 0): Uint8Array {
  switch (sgl.kind) {
    case 'none':
      return sglDescriptor.encode({ type: sglTypes.transport }, target, at);
    case 'inCapsule':
      return sglDescriptor.encode({ offset: sgl.offset, length: sgl.length, type: sglTypes.inCapsule }, target, at);
    case 'transport':
      return sglDescriptor.encode({ length: sgl.length, type: sglTypes.transport }, target, at);
    case 'keyed': {
      const { key, offset, length } = sgl;
      return keyedSglDescriptor.encode({ key, offset, length, type: sglTypes.keyed }, target, at);
    }
  }
}
