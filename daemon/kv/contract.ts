/** What the KV room offers to the rooms above it: sequences, and views of a layer to plan attention from. */
import type { DeviceJob } from '../timing/device-job.ts';
import type { ElementType } from '../../spec/element-type.ts';
import type { Lpn } from '../ftl/contract.ts';

export interface SequenceShape {
  readonly layerCount: number;
  readonly kvHeadCount: number;
  readonly headDimK: number;
  readonly headDimV: number;
  readonly elementTypeK: ElementType;
  readonly elementTypeV: ElementType;
  /** Tokens per group. Resolved: never 0 but in a request. */
  readonly groupTokens: number;
}

export interface SequenceRequest {
  readonly shape: SequenceShape;
  /** 0n: the drive chooses. */
  readonly id: bigint;
  readonly label: string;
  readonly leaseSeconds: number;
  /** Hash of the host NQN. */
  readonly owner: bigint;
}

export interface SequenceSummary {
  readonly id: bigint;
  readonly parentId: bigint;
  readonly shape: SequenceShape;
  readonly label: string;
  readonly owner: bigint;
  readonly leaseSeconds: number;
  /** Tokens per layer. */
  readonly lengths: readonly number[];
  readonly pageCount: number;
  readonly sharedPageCount: number;
  readonly paddingBytesPerPageK: number;
  readonly paddingBytesPerPageV: number;
  /** Tokens in the tail buffer, over all layers. */
  readonly bufferedTokenCount: number;
}

/**
 * Memory of a host's that native kernels can read where it lies. The host may change it, or take it away, at any moment: what
 * is checked, or read twice, is copied first.
 */
export interface HostRows {
  /** Of kernels/native/region-mapping.ts; undefined: it is not mapped, and has to be copied. */
  readonly mapping: number | undefined;
  /** Copies bytes from `offset` on. DriveError: they are not there any more. */
  read(offset: number, target: Uint8Array): void;
}

/** Rows that lie in the arena, or in memory of a host's: K rows, directly followed by V rows. */
export interface AppendSource {
  /** Of the first K row, in the arena or that memory. */
  readonly offset: number;
  readonly host?: HostRows | undefined;
  /** Of the first V row, if the V rows don't follow the K rows. */
  readonly valuesOffset?: number | undefined;
  /** Type of the rows; undefined: as the sequence stores them (K and V may differ). */
  readonly elementType?: ElementType | undefined;
  /** False: [token][head][dim]; true: [head][token][dim]. */
  readonly headMajor: boolean;
}

/**
 * One layer of one sequence as it stood when the view was taken. Its tail rows stay where they are until `release`;
 * its pages must be pinned (KvPages.pinAll) before the event loop is yielded.
 */
export interface LayerView {
  readonly shape: SequenceShape;
  /** Tokens in the layer. */
  readonly length: number;
  /** Tokens in whole groups, in flash: groups 0 to flashTokenCount / groupTokens - 1. */
  readonly flashTokenCount: number;
  page(group: number, head: number, part: 0 | 1): Lpn;
  /** Writes the pages of groups [first, end) of a head, K's and V's in turn, to `target` from `at` on. */
  copyPages(head: number, first: number, end: number, target: Uint32Array, at: number): void;
  /** Arena offset of the row of token flashTokenCount; only where length > flashTokenCount. */
  tail(head: number, part: 0 | 1): number;
  release(): void;
}

/** What changes a sequence is DriveError namespaceWriteProtected on a read-only drive, but `reclaim` and repeats. */
export interface KvStore {
  /** `groupTokens` may be 0 in the shape. DriveError invalidShape, invalidField, sequenceExists, sequenceLimit. */
  create(request: SequenceRequest): bigint;
  /**
   * Appends tokens to one layer; resolves with the layer's length once they are part of every later view. A repeat of
   * tokens already there succeeds if they are equal after conversion. DriveError appendGap, appendConflict,
   * unknownSequence, layerRange, tokenRange, capacityExceeded, bufferFull.
   */
  append(
    id: bigint,
    layer: number,
    position: number,
    tokenCount: number,
    source: AppendSource,
    job?: DeviceJob,
  ): Promise<number>;
  /** A new sequence that shares the first `tokenCount` tokens of every layer (fewer where a layer is shorter). */
  fork(sourceId: bigint, tokenCount: number, request: Omit<SequenceRequest, 'shape'>, job?: DeviceJob): Promise<bigint>;
  /** `layer` undefined: all. DriveError tokenRange if longer than the layer. */
  truncate(id: bigint, layer: number | undefined, length: number, job?: DeviceJob): Promise<void>;
  reclaim(id: bigint): Promise<void>;
  /**
   * Reclaims every sequence: after a crash all of them are as they were, or none is there. Durable with the next flush.
   * Ids are not chosen again. No command may be in flight.
   */
  clear(): Promise<void>;
  /** DriveError unknownSequence, leaseExpired, layerRange. */
  view(id: bigint, layer: number): LayerView;
  /** Cheap: for sizing a command's data before any work. DriveError unknownSequence. */
  shape(id: bigint): SequenceShape;
  summary(id: bigint): SequenceSummary;
  /** As summary, but its lease goes on: for those who only look (control plane, metrics). */
  inspect(id: bigint): SequenceSummary;
  /** Ids above `after`, ascending, at most `countMax`. */
  list(after: bigint, countMax: number): bigint[];
  /**
   * Copies stored rows to the arena: K rows then V rows (as `part` says: 1 K, 2 V, 3 both), converted to `elementType`
   * if given.
   */
  readBack(request: ReadBackRequest, targetOffset: number, job?: DeviceJob): Promise<void>;
  readBackSizeBytes(request: ReadBackRequest): number;
  /** Bytes that `append` takes. */
  appendSizeBytes(id: bigint, tokenCount: number, elementType: ElementType | undefined): number;
}

/** The store for those who keep owners apart. */
export interface OwnedStore extends KvStore {
  /** Of a live sequence, or of one whose lease ended lately; undefined: nobody has this id. */
  ownerOf(id: bigint): bigint | undefined;
  /** What the sequences of one owner take: `bytes` of flash pages, shared ones for each holder, and tail buffers. */
  holding(owner: bigint): { readonly sequenceCount: number; readonly bytes: number };
  /** As `list`, of one owner. */
  listOf(owner: bigint, after: bigint, countMax: number): bigint[];
}

export interface ReadBackRequest {
  readonly id: bigint;
  readonly layer: number;
  readonly part: 1 | 2 | 3;
  readonly tokenStart: number;
  readonly tokenCount: number;
  readonly firstHead: number;
  readonly headCount: number;
  readonly elementType?: ElementType | undefined;
  readonly headMajor: boolean;
}
