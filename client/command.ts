import { encodeSgl, type OpcodeRow, SGL_FLAGS, type Sgl, submissionEntry } from '../spec/index.ts';

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

/** A submission entry for `opcode`, its data described by `sgl`. */
export function encodeEntry(opcode: OpcodeRow, fields: CommandFields, sgl: Sgl): Uint8Array {
  const entry: Uint8Array = submissionEntry.encode({ ...fields, opcode: opcode.opcode, flags: SGL_FLAGS });
  encodeSgl(sgl, entry, submissionEntry.offsetOf.sgl);
  return entry;
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
