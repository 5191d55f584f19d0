import { DriveError } from '../base/errors.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import type { MetaChange, MetaKey, MetaStore } from '../meta/contract.ts';
import type { Media } from '../nand/media.ts';
import { UnwrittenError } from '../nand/write-behind.ts';
import type { Allocator, OpenSuperblock } from './allocator.ts';
import {
  type CheckpointParticipant,
  type CheckpointSink,
  type Durability,
  type OperationCounter,
  type StagingLog,
  type StagingOwner,
  stagingOwners,
} from './contract.ts';
import { GroupCommit } from './group-commit.ts';
import type { ScrubPosition } from './scrubber.ts';
import type { LogPosition, StagingFile } from './staging-log.ts';

/** The drive's own record in every transaction. */
export interface StateRecord {
  readonly operation: number;
  /** The drive was shut down in order: what was open can be written on. */
  readonly isClean: boolean;
  readonly log: LogPosition;
  readonly open: readonly OpenSuperblock[];
  readonly startCount: number;
  readonly unsafeShutdownCount: number;
  /** Counters since format, by name. */
  readonly lifetime: Readonly<Record<string, number>>;
  /** Where the scrub was; drives of earlier programs have none. */
  readonly scrub?: ScrubPosition | undefined;
}

export interface CheckpointOptions {
  /** A segment of the staging log beyond this is given up: the next checkpoint stages everything in a new one. */
  readonly segmentBytesMax: number;
  /** Pages programmed since the last checkpoint after which one is made: recovery has to read them. */
  readonly programmedPagesMax: number;
}

export interface CheckpointModules {
  readonly media: Media;
  readonly meta: MetaStore;
  readonly staging: StagingFile;
  readonly operations: OperationCounter;
  readonly allocator: Allocator;
  /** Parts of the state record that other rooms' files know. */
  readonly describe: () => Pick<StateRecord, 'startCount' | 'unsafeShutdownCount' | 'lifetime' | 'scrub'>;
  /** Everything up to `operation` is durable. */
  readonly checkpointed: (operation: number) => void;
}

/** Parts of the FTL that belong to every checkpoint. */
export interface InnerParticipant {
  checkpoint(sink: CheckpointSink): void;
  stageBuffered?(restage: boolean): void;
}

/**
 * Makes checkpoints. The order is what the promises rest on:
 * 1. Gather, in one synchronous stretch: records to the staging log, changes for the transaction. One state, one number.
 * 2. Sync staging log and media. Every page that the gathered maps name is durable.
 * 3. Commit the transaction and wait until it is on disk. Now the new maps count.
 * 4. Only then free what the new maps have superseded: erase blocks, page numbers, old segments.
 */
export class Checkpointer implements Durability {
  readonly #options: CheckpointOptions;
  readonly #modules: CheckpointModules;
  readonly #inner: readonly InnerParticipant[];
  readonly #participants: CheckpointParticipant[] = [];
  readonly #log: StagingLog;
  /** Gathered by a checkpoint whose transaction failed; they go into the next. */
  #uncommitted: MetaChange[] = [];
  #restageNext = false;
  #isGathering = false;
  #isAsked = false;
  #segmentBytesMax: number;
  /** Since the last checkpoint gathered. */
  #programmedPages = 0;
  readonly #checkpoints = new GroupCommit(() => this.#checkpoint(false, false));
  readonly #syncs = new GroupCommit(() => this.#sync());
  #failure: DriveError | undefined;
  checkpointCount = 0;
  mediaSyncCount = 0;
  lastOperation = 0;

  constructor(options: CheckpointOptions, modules: CheckpointModules, inner: readonly InnerParticipant[]) {
    this.#options = options;
    this.#segmentBytesMax = options.segmentBytesMax;
    this.#modules = modules;
    this.#inner = inner;
    this.#log = {
      append: (owner: StagingOwner, payload) => {
        this.assertWorking();
        return modules.staging.append(owner === stagingOwners.kv ? 'kv' : 'block', payload);
      },
    };
  }

  /** A sync has failed: nothing can be made durable any more. */
  get failure(): DriveError | undefined {
    return this.#failure;
  }

  get log(): StagingLog {
    return this.#log;
  }

  register(participant: CheckpointParticipant): void {
    this.#participants.push(participant);
  }

  flush(): Promise<void> {
    return this.#checkpoints.request();
  }

  /** The checkpoint that ends recovery, or one that leaves no old record behind: all is staged anew. Or the last one. */
  special(kind: 'opening' | 'restaging' | 'closing'): Promise<void> {
    return this.#checkpoints.run(() => this.#checkpoint(kind !== 'closing', kind === 'closing'));
  }

  async #checkpoint(forceRestage: boolean, isClean: boolean): Promise<void> {
    const { media, meta, staging, operations, checkpointed } = this.#modules;
    this.assertWorking();
    const operation = operations.next();
    const restage = forceRestage || this.#restageNext || staging.segmentBytes > this.#segmentBytesMax;
    // Until this transaction is durable, recovery starts from the old one and reads the old segments too.
    if (restage) staging.rotate();
    // What a gathering that fails has staged may be in half: the next one stages all of it again.
    this.#restageNext = true;
    const log = this.#gather(operation, restage, isClean);
    this.#restageNext = false;
    await this.#syncAll(staging, media);
    const changes = this.#uncommitted;
    this.#uncommitted = [];
    try {
      await meta.commit(changes);
    } catch (error) {
      this.#uncommitted = newestOf(changes);
      throw error;
    }
    this.checkpointCount++;
    this.lastOperation = operation;
    staging.removeBefore(log.segment);
    checkpointed(operation);
  }

  /** Synchronous: one state of all rooms. Returns where the log ends that belongs to it. */
  #gather(operation: number, restage: boolean, isClean: boolean): LogPosition {
    const { staging, allocator, describe } = this.#modules;
    this.#isGathering = true;
    this.#programmedPages = 0;
    try {
      const sink = this.#sink(operation, restage, isClean);
      for (const participant of [...this.#inner, ...this.#participants]) participant.checkpoint(sink);
      const log = { segment: staging.segmentNumber, sizeBytes: staging.segmentBytes };
      // What is staged anew may be a lot by itself.
      if (restage) this.#segmentBytesMax = Math.max(this.#options.segmentBytesMax, 2 * log.sizeBytes);
      const open = allocator.openSuperblocks();
      const state: StateRecord = { operation, isClean, log, open, ...describe() };
      sink.put(metaNamespaces.drive, ['state'], state);
      return log;
    } finally {
      this.#isGathering = false;
    }
  }

  #sink(operation: number, restage: boolean, isClosing: boolean): CheckpointSink {
    const { staging } = this.#modules;
    const changes = this.#uncommitted;
    return {
      operation,
      restage,
      isClosing,
      stage: (owner, payload) => void staging.append(owner === stagingOwners.kv ? 'kv' : 'block', payload),
      put: (namespace: number, key: MetaKey, value: unknown) =>
        void changes.push({ kind: 'put', namespace, key, value }),
      remove: (namespace: number, key: MetaKey) => void changes.push({ kind: 'remove', namespace, key }),
    };
  }

  syncStaging(): Promise<void> {
    return this.#syncs.request();
  }

  /** The log grows with what is never flushed (FUA writes, deallocations), so a checkpoint begins a new segment in time. */
  appended(): void {
    if (!this.#isGathering && this.#modules.staging.segmentBytes > this.#segmentBytesMax) this.#ask();
  }

  /** A page was programmed. A host that never flushes must not make the next start long. */
  programmed(): void {
    if (++this.#programmedPages > this.#options.programmedPagesMax) this.#ask();
  }

  #ask(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    void this.soon().finally(() => (this.#isAsked = false));
  }

  /** Asks for a checkpoint that nobody waits for; whoever flushes next is told if it fails. */
  soon(): Promise<void> {
    return this.flush().catch(() => undefined);
  }

  get hasFailed(): boolean {
    return this.#failure !== undefined;
  }

  /** DriveError writeFault once a sync has failed: nothing that changes now could ever be durable. */
  assertWorking(): void {
    if (this.#failure) throw this.#failure;
  }

  async #sync(): Promise<void> {
    this.assertWorking();
    for (const participant of this.#inner) participant.stageBuffered?.(false);
    for (const participant of this.#participants) participant.stageBuffered(this.#log);
    await this.#syncAll(this.#modules.staging, this.#modules.media);
  }

  /**
   * After a failed sync nobody knows what is on disk, and a second try may lie: the drive stops promising. But for pages that
   * the disk has not taken yet, which the drive still has.
   */
  async #syncAll(staging: StagingFile, media: Media): Promise<void> {
    this.mediaSyncCount++;
    const results = await Promise.allSettled([staging.sync(), media.sync()]);
    for (const result of results) {
      if (result.status === 'fulfilled') continue;
      const error: unknown = result.reason;
      if ((error as Error).cause instanceof UnwrittenError) continue;
      const why = `an earlier sync failed (${(error as Error).message}); reads go on, restart the drive to recover`;
      this.#failure ??= new DriveError('writeFault', why, { cause: error });
      throw error;
    }
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }
}

/** Of several changes of one record only the last counts: what fails for hours must not fill the memory. */
function newestOf(changes: readonly MetaChange[]): MetaChange[] {
  const newest = new Map(changes.map((change) => [JSON.stringify([change.namespace, ...change.key]), change]));
  return [...newest.values()];
}
