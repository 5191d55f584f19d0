import { type OpcodeRow, SGL_FLAGS, type Sgl, sglTypes, submissionEntry } from '../spec/index.ts';

/** DW0 and DW1 of a successful completion, as two unsigned 32-bit numbers. */
export interface Completion {
  readonly dw0: number;
  readonly dw1: number;
}

/** One command on its way: its 64 bytes, and where its data comes from or goes to. */
export interface Command {
  /** The submission entry. The queue writes the command id into it. */
  readonly entry: Uint8Array;
  readonly opcodeName: string;
  /** What it is about, for error messages. */
  readonly subject: () => string;
  /** Data that goes along in the capsule; unchanged until the command ends. */
  readonly capsuleData?: readonly Uint8Array[] | undefined;
  /** Data that the drive asks for by R2T; unchanged until the command ends. */
  readonly sendData?: readonly Uint8Array[] | undefined;
  /** Where C2HData goes: exactly as long as the data. */
  readonly receive?: Uint8Array | undefined;
  /** The drive may give less data than `receive` has room for. */
  readonly receiveMayBeShort?: boolean;
  readonly fabrics?: boolean;
  /** DW1 of its completion is its device latency. */
  readonly deviceLatency?: boolean;
}

export interface CommandFields {
  readonly namespaceId?: number;
  readonly cdw2?: number;
  readonly cdw3?: number;
  readonly cdw10?: number;
  readonly cdw11?: number;
  readonly cdw12?: number;
  readonly cdw13?: number;
  readonly cdw14?: number;
  readonly cdw15?: number;
}

const at = submissionEntry.offsetOf;

/**
 * A submission entry for `opcode`, its data described by `sgl`. The bytes of `submissionEntry.encode` and `encodeSgl`, a
 * dword at a time: every command comes through here. RangeError for a field that is no 32-bit number.
 */
export function encodeEntry({ opcode }: OpcodeRow, fields: CommandFields, sgl: Sgl): Uint8Array {
  const entry = new Uint8Array(submissionEntry.sizeBytes);
  const {
    namespaceId = 0,
    cdw2 = 0,
    cdw3 = 0,
    cdw10 = 0,
    cdw11 = 0,
    cdw12 = 0,
    cdw13 = 0,
    cdw14 = 0,
    cdw15 = 0,
  } = fields;
  entry[at.opcode] = opcode;
  entry[at.flags] = SGL_FLAGS;
  putDword(entry, at.namespaceId, namespaceId);
  putDword(entry, at.cdw2, cdw2);
  putDword(entry, at.cdw3, cdw3);
  putSgl(entry, sgl);
  putDword(entry, at.cdw10, cdw10);
  putDword(entry, at.cdw11, cdw11);
  putDword(entry, at.cdw12, cdw12);
  putDword(entry, at.cdw13, cdw13);
  putDword(entry, at.cdw14, cdw14);
  putDword(entry, at.cdw15, cdw15);
  return entry;
}

function putSgl(entry: Uint8Array, sgl: Sgl): void {
  const { kind } = sgl;
  entry[at.sgl + 15] = kind === 'none' ? sglTypes.transport : sglTypes[kind];
  if (kind === 'none') return;
  if (kind !== 'transport') {
    putDword(entry, at.sgl, sgl.offset % 2 ** 32);
    putDword(entry, at.sgl + 4, Math.floor(sgl.offset / 2 ** 32));
  }
  if (kind === 'keyed') {
    if (sgl.length >= 2 ** 24) throw new RangeError(`keyed data of ${sgl.length} bytes`);
    // 24 bits of length, then the key.
    putDword(entry, at.sgl + 8, sgl.length);
    putDword(entry, at.sgl + 11, sgl.key);
  } else putDword(entry, at.sgl + 8, sgl.length);
}

function putDword(entry: Uint8Array, offset: number, value: number): void {
  if (!(value >= 0 && value < 2 ** 32 && Number.isInteger(value))) {
    throw new RangeError(`${value} at byte ${offset} of a submission entry; allowed: an integer from 0 to 2^32 - 1`);
  }
  entry[offset] = value;
  entry[offset + 1] = value >>> 8;
  entry[offset + 2] = value >>> 16;
  entry[offset + 3] = value >>> 24;
}

export interface CommandOptions {
  /** Gives up waiting. A command that was already sent still runs in the drive; its result is dropped. */
  readonly signal?: AbortSignal | undefined;
  /** Gives up waiting after this long, in milliseconds, with DriveTimeoutError. Default: never. */
  readonly timeoutMs?: number | undefined;
  /**
   * Told the device latency of each command that the call sends, in ns: what the drive's profile says that it took, not
   * this machine. 0 unless the drive was started with --timing; at most 4294967295.
   */
  readonly onDeviceLatency?: ((deviceLatencyNs: number, command: string) => void) | undefined;
}

export const byteLengthOf = (parts: readonly Uint8Array[]): number =>
  parts.reduce((sum, part) => sum + part.byteLength, 0);
