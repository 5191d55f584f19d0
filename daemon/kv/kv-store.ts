import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ElementType } from '../../spec/element-type.ts';
import { limits } from '../../spec/limits.ts';
import type { Arena } from '../base/arena.ts';
import { type DeviceJob, untimed } from '../timing/device-job.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type {
  CheckpointParticipant,
  CheckpointSink,
  KvPages,
  KvRecovery,
  RecoveredEvent,
  StagingLog,
} from '../ftl/contract.ts';
import type { Kernels } from '../kernels/contract.ts';
import type { MetaReader } from '../meta/contract.ts';
import { appendTokens, checkAppendRange } from './append.ts';
import { checkpointSequences, removedOf, stageBuffered, type RemovedSequence } from './checkpoint.ts';
import type {
  AppendSource,
  LayerView,
  OwnedStore,
  ReadBackRequest,
  SequenceRequest,
  SequenceShape,
  SequenceSummary,
} from './contract.ts';
import { emptyRecoveryReport, type KvSnapshot } from './counters.ts';
import { dropTokens, shareTokens } from './fork.ts';
import { TailHoldingView } from './layer-view.ts';
import { LeaseKeeper } from './lease.ts';
import { checkReadBack, readBackRows, readBackSize } from './read-back.ts';
import { Recovery } from './recovery.ts';
import { layerOf, KvRoom } from './room.ts';
import { sourceSizeBytes } from './row-source.ts';
import { Sequence } from './sequence.ts';
import { resolveShape, rowLayoutOf } from './shape.ts';
import { encodeClear, encodeCreate, encodeFork, encodeReclaim } from './staged-records.ts';
import { summaryOf } from './summary.ts';
import { truncateLayers } from './truncate.ts';

const ID_MAX = 2n ** 64n - 1n;
/** Ids looked at together where those of one owner are wanted. */
const LIST_STEP = 1024;

/**
 * The sequences of one drive. Made before the drive is opened, since opening recovers it: `recover`, then `settle`,
 * then commands; `close` ends its timer.
 */
export class SequenceStore implements OwnedStore, CheckpointParticipant, KvRecovery {
  readonly #room: KvRoom;
  readonly #leases: LeaseKeeper;
  readonly #sequences = new Map<bigint, Sequence>();
  /** Live ids in ascending order; undefined: to be sorted anew. */
  #sortedIds: bigint[] | undefined;
  #removed: RemovedSequence[] = [];
  #nextId = 1n;
  #recovery: Recovery | undefined;
  #report = emptyRecoveryReport;

  constructor(modules: { arena: Arena; kernels: Kernels; clock: Clock }) {
    this.#room = new KvRoom(modules);
    this.#leases = new LeaseKeeper({
      clock: modules.clock,
      expire: (sequence) => {
        // Room is of no use to a drive that may write no more, and what it holds is to be got out of it.
        this.#room.pages.assertWritable();
        this.#remove(sequence);
        this.#room.counters.expiredCount++;
      },
    });
  }

  // --- Opening and closing

  recover(events: readonly RecoveredEvent[], lpnCount: number, records: MetaReader): Uint16Array {
    const recovery = new Recovery();
    recovery.load(records);
    for (const event of events) recovery.apply(event);
    this.#recovery = recovery;
    return recovery.references(lpnCount);
  }

  async settle(pages: KvPages, log: StagingLog): Promise<void> {
    this.#room.attach(pages, log);
    const recovery = this.#recovery ?? new Recovery();
    for (const sequence of await recovery.settle(this.#room)) {
      this.#sequences.set(sequence.id, sequence);
      this.#leases.add(sequence);
    }
    this.#nextId = recovery.nextId;
    this.#removed.push(...recovery.removed);
    this.#report = recovery.report(this.#sequences.size);
    this.#recovery = undefined;
    this.#leases.start();
  }

  /** Ends the lease timer. Nothing may be in flight. */
  close(): void {
    this.#leases.stop();
  }

  // --- Durability

  checkpoint(sink: CheckpointSink): void {
    checkpointSequences(this.#room, sink, this.#live(), this.#removed, this.#nextId);
    this.#removed = [];
  }

  stageBuffered(log: StagingLog): void {
    stageBuffered(this.#room, log);
  }

  *#live(): Iterable<Sequence> {
    for (const sequence of this.#sequences.values()) {
      if (sequence.state === 'live') yield sequence;
    }
  }

  // --- Sequences

  create(request: SequenceRequest): bigint {
    const shape = resolveShape(request.shape, this.#room.pages.pageSizeBytes);
    this.#room.pages.assertWritable();
    const sequence = this.#form({ ...request, shape }, 0n);
    try {
      this.#enliven(sequence, this.#room.record(encodeCreate({ ...request, id: sequence.id, shape })));
    } catch (error) {
      this.#dismiss(sequence);
      throw error;
    }
    this.#room.counters.createdCount++;
    return sequence.id;
  }

  async fork(
    sourceId: bigint,
    tokenCount: number,
    request: Omit<SequenceRequest, 'shape'>,
    job: DeviceJob = untimed,
  ): Promise<bigint> {
    const parent = this.#named(sourceId);
    if (!Number.isInteger(tokenCount) || tokenCount < 0) {
      throw new DriveError('tokenRange', `fork at ${tokenCount} tokens`);
    }
    this.#room.pages.assertWritable();
    const child = this.#form({ ...request, shape: parent.shape }, sourceId);
    try {
      await parent.queue.run(async () => {
        this.#assertLive(parent);
        await shareTokens(this.#room, parent, child, tokenCount, job);
        try {
          const shared = Math.min(tokenCount, limits.sequenceTokensMax);
          this.#enliven(child, this.#room.record(encodeFork({ ...request, id: child.id }, sourceId, shared)));
        } catch (error) {
          dropTokens(this.#room, child);
          throw error;
        }
      });
    } catch (error) {
      child.enter('reclaimed');
      this.#dismiss(child);
      throw error;
    }
    this.#room.counters.forkedCount++;
    return child.id;
  }

  /** A sequence whose id is taken but that nobody sees. DriveError invalidField, sequenceExists, sequenceLimit. */
  #form(request: SequenceRequest, parentId: bigint): Sequence {
    checkRequest(request);
    if (this.#sequences.size >= limits.sequenceCountMax) {
      throw new DriveError(
        'sequenceLimit',
        `${this.#sequences.size} sequences, allowed are ${limits.sequenceCountMax}`,
      );
    }
    if (this.#sequences.has(request.id)) throw new DriveError('sequenceExists', `sequence ${request.id}`);
    const id = request.id === 0n ? this.#chooseId() : request.id;
    const layout = rowLayoutOf(request.shape, this.#room.pages.pageSizeBytes);
    const sequence = new Sequence(
      { ...request, id },
      { parentId, layout, holding: this.#room.holdings.enter(request.owner) },
    );
    this.#sequences.set(id, sequence);
    return sequence;
  }

  /** Its id is free again, unless the drive chose it. */
  #dismiss(sequence: Sequence): void {
    this.#sequences.delete(sequence.id);
    this.#room.holdings.leave(sequence.owner, sequence.holding);
  }

  /** Ids that the drive chooses count up from 1 and are never chosen twice. */
  #chooseId(): bigint {
    while (this.#sequences.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  #enliven(sequence: Sequence, operation: number): void {
    sequence.beginGeneration(operation);
    sequence.enter('live');
    this.#sortedIds = undefined;
    this.#room.dirty.add(sequence);
    this.#leases.add(sequence);
  }

  async reclaim(id: bigint): Promise<void> {
    const sequence = this.#named(id);
    await sequence.queue.run(async () => {
      this.#assertLive(sequence);
      this.#remove(sequence);
    });
  }

  async clear(): Promise<void> {
    this.#room.pages.assertWritable();
    this.#room.record(encodeClear());
    const cleared = [...this.#live()];
    for (const sequence of cleared) this.#forget(sequence);
    // A checkpoint may come in between: pages that no sequence holds are free after a crash, too.
    for (const sequence of cleared) {
      dropTokens(this.#room, sequence);
      await nextTurn();
    }
  }

  #remove(sequence: Sequence): void {
    this.#room.record(encodeReclaim(sequence.id));
    this.#forget(sequence);
    dropTokens(this.#room, sequence);
  }

  #forget(sequence: Sequence): void {
    if (sequence.saved) this.#removed.push(removedOf(sequence));
    sequence.enter('reclaimed');
    this.#dismiss(sequence);
    this.#sortedIds = undefined;
    this.#room.dirty.delete(sequence);
    this.#leases.remove(sequence);
    this.#room.counters.reclaimedCount++;
  }

  /** The live sequence of that id. DriveError unknownSequence, leaseExpired. */
  #find(id: bigint): Sequence {
    const sequence = this.#sequences.get(id);
    if (sequence?.state === 'live') return sequence;
    if (this.#leases.hasExpired(id)) throw new DriveError('leaseExpired', `sequence ${id}`);
    throw new DriveError('unknownSequence', `sequence ${id}`);
  }

  /** The same for a command: its lease begins anew. */
  #named(id: bigint): Sequence {
    const sequence = this.#find(id);
    sequence.namedAtNs = this.#leases.nowNs;
    return sequence;
  }

  /** For a task that waited in the queue. */
  #assertLive(sequence: Sequence): void {
    if (sequence.state !== 'live') throw new DriveError('unknownSequence', `sequence ${sequence.id} was reclaimed`);
  }

  // --- Tokens

  async append(
    id: bigint,
    layerIndex: number,
    position: number,
    tokenCount: number,
    source: AppendSource,
    job: DeviceJob = untimed,
  ): Promise<number> {
    const sequence = this.#named(id);
    const layer = layerOf(sequence, layerIndex);
    checkAppendRange(position, tokenCount);
    return sequence.queue.run(async () => {
      this.#assertLive(sequence);
      return appendTokens(this.#room, sequence, { layerIndex, layer, position, tokenCount, source, job });
    });
  }

  appendSizeBytes(id: bigint, tokenCount: number, elementType: ElementType | undefined): number {
    return sourceSizeBytes(this.#named(id).shape, tokenCount, elementType);
  }

  async truncate(id: bigint, layerIndex: number | undefined, length: number, job: DeviceJob = untimed): Promise<void> {
    const sequence = this.#named(id);
    if (layerIndex !== undefined) layerOf(sequence, layerIndex);
    this.#room.pages.assertWritable();
    await sequence.queue.run(async () => {
      this.#assertLive(sequence);
      await truncateLayers(this.#room, sequence, { layerIndex, length, job });
    });
  }

  view(id: bigint, layerIndex: number): LayerView {
    const sequence = this.#named(id);
    return new TailHoldingView(sequence, layerOf(sequence, layerIndex));
  }

  async readBack(request: ReadBackRequest, targetOffset: number, job: DeviceJob = untimed): Promise<void> {
    await readBackRows(this.#room, this.#named(request.id), request, targetOffset, job);
  }

  readBackSizeBytes(request: ReadBackRequest): number {
    const sequence = this.#named(request.id);
    checkReadBack(sequence, request);
    return readBackSize(sequence, request);
  }

  shape(id: bigint): SequenceShape {
    return this.#named(id).shape;
  }

  // --- For people

  summary(id: bigint): SequenceSummary {
    return summaryOf(this.#named(id), this.#room.pages);
  }

  inspect(id: bigint): SequenceSummary {
    return summaryOf(this.#find(id), this.#room.pages);
  }

  list(after: bigint, countMax: number): bigint[] {
    this.#sortedIds ??= [...this.#live()].map(({ id }) => id).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0));
    const ids = this.#sortedIds;
    let low = 0;
    for (let high = ids.length; low < high; ) {
      const middle = (low + high) >>> 1;
      if ((ids[middle] as bigint) <= after) low = middle + 1;
      else high = middle;
    }
    return ids.slice(low, low + countMax);
  }

  // --- For those who keep owners apart

  ownerOf(id: bigint): bigint | undefined {
    const sequence = this.#sequences.get(id);
    return sequence?.state === 'live' ? sequence.owner : this.#leases.ownerOfExpired(id);
  }

  holding(owner: bigint): { sequenceCount: number; bytes: number } {
    const { sequenceCount, pageCount, tailBytes } = this.#room.holdings.of(owner);
    return { sequenceCount, bytes: pageCount * this.#room.pages.pageSizeBytes + tailBytes };
  }

  listOf(owner: bigint, after: bigint, countMax: number): bigint[] {
    const own: bigint[] = [];
    for (let last = after; own.length < countMax; ) {
      const ids = this.list(last, LIST_STEP);
      for (const id of ids) if (own.length < countMax && this.#sequences.get(id)?.owner === owner) own.push(id);
      if (ids.length < LIST_STEP) break;
      last = ids.at(-1) as bigint;
    }
    return own;
  }

  snapshot(): KvSnapshot {
    let bufferedTokenCount = 0;
    for (const sequence of this.#live()) {
      for (const layer of sequence.layers) bufferedTokenCount += sequence.tailCount(layer);
    }
    return {
      ...this.#room.counters,
      bufferedTokenCount,
      sequenceCount: this.#sequences.size,
      tailBytes: this.#room.tails.usedBytes,
      recovery: this.#report,
    };
  }
}

function checkRequest({ id, owner, leaseSeconds, label }: Omit<SequenceRequest, 'shape'>): void {
  const refuse = (detail: string): never => {
    throw new DriveError('invalidField', detail);
  };
  if (id < 0n || id > ID_MAX) refuse(`sequence id ${id} does not fit 64 bits`);
  if (owner < 0n || owner > ID_MAX) refuse(`owner ${owner} does not fit 64 bits`);
  if (!Number.isInteger(leaseSeconds) || leaseSeconds < 0 || leaseSeconds > 0xffff_ffff) {
    refuse(`lease of ${leaseSeconds} seconds, allowed are 0 to ${0xffff_ffff}`);
  }
  const labelBytes = Buffer.byteLength(label, 'utf8');
  if (labelBytes > limits.labelBytesMax) refuse(`label of ${labelBytes} bytes, allowed are ${limits.labelBytesMax}`);
  if (label.includes('\0')) refuse('label with a zero character');
}
