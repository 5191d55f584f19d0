/** The drive and its hosts as they should be after every command so far. */
import type { ErrorCode } from '../../../spec/errors.ts';
import type { SequenceModel } from './sequence-model.ts';

export const LBA_BYTES = 4096;
const ZEROS = new Uint8Array(LBA_BYTES);

/** What of the drive is a matter of the session. */
export interface DriveTraits {
  readonly lbaCount: number;
  readonly pageSizeBytes: number;
  /** Statuses that something of the session explains: a small arena, dies that fail, a full map of sequences. */
  readonly excuses: ReadonlySet<ErrorCode>;
}

export class DriveModel {
  readonly traits: DriveTraits;
  readonly #blocks = new Map<number, Uint8Array>();
  /** Nobody knows what these hold. */
  readonly uncertainLbas = new Set<number>();
  readonly sequences = new Map<bigint, SequenceModel>();
  /** Ids of which nobody knows whether they name a sequence, and which. */
  readonly uncertainSequences = new Set<bigint>();
  /** The lease of these has ended, which late commands are told. */
  readonly expired = new Set<bigint>();
  /** The same, if it was there. */
  readonly perhapsExpired = new Set<bigint>();
  /** Ids that the drive has chosen are never chosen again. */
  chosenMax = 0n;
  nowMs = 0;
  /** Its namespaces are being formatted. */
  formatting = 0;

  constructor(traits: DriveTraits) {
    this.traits = traits;
  }

  block(lba: number): Uint8Array {
    return this.#blocks.get(lba) ?? ZEROS;
  }

  /** undefined: zeros. */
  setBlocks(lba: number, count: number, data: Uint8Array | undefined): void {
    for (let i = 0; i < count; i++) {
      if (data === undefined) this.#blocks.delete(lba + i);
      else this.#blocks.set(lba + i, data.slice(i * LBA_BYTES, (i + 1) * LBA_BYTES));
      this.uncertainLbas.delete(lba + i);
    }
  }

  loseBlocks(lba: number, count: number): void {
    for (let i = 0; i < count; i++) this.uncertainLbas.add(lba + i);
  }

  clearBlocks(): void {
    this.#blocks.clear();
    this.uncertainLbas.clear();
  }

  loseSequence(id: bigint): void {
    this.sequences.delete(id);
    this.uncertainSequences.add(id);
  }

  clearSequences(): void {
    this.sequences.clear();
    this.uncertainSequences.clear();
  }
}

/** Outputs that lie in a result slot. */
export interface SlotModel {
  readonly sizeBytes: number;
  /** Throws unless bytes from `offset` on are what was put there. */
  check(bytes: Uint8Array, offset: number): void;
}

export interface RegionModel {
  readonly key: number;
  readonly sizeBytes: number;
  readonly path: string;
  readonly fd: number;
}

/** One association as it should be, or a connection that has none. */
export class HostModel {
  /** Number of the host, by its NQN. */
  readonly host: number;
  /** Whose queues what is sent on are. */
  readonly kind: 'io' | 'discovery' | 'central';
  readonly slots = new Map<number, SlotModel>();
  readonly uncertainSlots = new Set<number>();
  readonly regions = new Map<number, RegionModel>();
  /** Of asynchronous event requests. */
  requestCount = 0;
  /** What the error log counts. */
  errorCount = 0;
  lastError:
    | { readonly queueId: number; readonly commandId: number; readonly status: number; readonly opcode: number }
    | undefined;
  /** Values of features by number; undefined: nobody has set it. */
  readonly features = new Map<number, number>();
  /** Entities that it has registered with a discovery service. */
  readonly entities = new Set<string>();
  readonly uncertainEntities = new Set<string>();
  /** It sees its own sequences only. */
  isConfined = false;
  controllerId = 0;
  /** I/O queues. */
  queueCount = 0;

  constructor(host: number, kind: HostModel['kind']) {
    this.host = host;
    this.kind = kind;
  }
}
