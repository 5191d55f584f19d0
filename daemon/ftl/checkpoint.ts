import { DriveError } from '../base/errors.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import type { MetaChange, MetaKey, MetaStore } from '../meta/contract.ts';
import type { Media } from '../nand/media.ts';
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
import type { StagingFile } from './staging-log.ts';

/** The drive's own record in every transaction. */
export interface StateRecord {
  readonly operation: number;
  /** The drive was shut down in order: what was open can be written on. */
  readonly isClean: boolean;
  /** First segment of the staging log that counts. */
  readonly firstSegment: number;
  readonly open: readonly OpenSuperblock[];
  readonly startCount: number;
  readonly unsafeShutdownCount: number;
  /** Counters since format, by name. */
  readonly lifetime: Readonly<Record<string, number>>;
}

export interface CheckpointModules {
  readonly media: Media;
  readonly meta: MetaStore;
  readonly staging: StagingFile;
  readonly operations: OperationCounter;
  readonly allocator: Allocator;
  /** Parts of the state record that other rooms' files know. */
  readonly describe: () => Pick<StateRecord, 'startCount' | 'unsafeShutdownCount' | 'lifetime'>;
  /** Everything up to `operation` is durable. */
  readonly checkpointed: (operation: number) => void;
}

/** Parts of the FTL that belong to every checkpoint. */
export interface InnerParticipant {
  checkpoint(sink: CheckpointSink): void;
  stageBuffered?(restage: boolean): void;
}

/** A segment of the staging log beyond this is given up: the next checkpoint stages everything in a new one. */
const SEGMENT_BYTES_MAX = 64 * 2 ** 20;

/**
 * Makes checkpoints. The order is what the promises rest on:
 * 1. Gather, in one synchronous stretch: records to the staging log, changes for the transaction. One state, one number.
 * 2. Sync staging log and media. Every page that the gathered maps name is durable.
 * 3. Commit the transaction and wait until it is on disk. Now the new maps count.
 * 4. Only then free what the new maps have superseded: erase blocks, page numbers, old segments.
 */
export class Checkpointer implements Durability {
  readonly #modules: CheckpointModules;
  readonly #inner: readonly InnerParticipant[];
  readonly #participants: CheckpointParticipant[] = [];
  readonly #log: StagingLog;
  /** Gathered by a checkpoint whose transaction failed; they go into the next. */
  #uncommitted: MetaChange[] = [];
  #firstSegment = 0;
  #restageNext = false;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #syncRunning: Promise<void> | undefined;
  #syncNext: Promise<void> | undefined;
  #failure: DriveError | undefined;
  checkpointCount = 0;
  mediaSyncCount = 0;
  lastOperation = 0;

  constructor(modules: CheckpointModules, inner: readonly InnerParticipant[]) {
    this.#modules = modules;
    this.#inner = inner;
    this.#log = {
      append: (owner: StagingOwner, payload) =>
        modules.staging.append(owner === stagingOwners.kv ? 'kv' : 'block', payload),
    };
  }

  get log(): StagingLog {
    return this.#log;
  }

  register(participant: CheckpointParticipant): void {
    this.#participants.push(participant);
  }

  /** Calls that come while one is running share the one after it. */
  flush(): Promise<void> {
    if (this.#next) return this.#next;
    if (!this.#running) return this.#start(false, false);
    this.#next = this.#running
      .then(
        () => undefined,
        () => undefined,
      )
      .then(() => {
        this.#next = undefined;
        return this.#start(false, false);
      });
    return this.#next;
  }

  /** The checkpoint that ends recovery: everything is staged anew. Or the last one of a clean shutdown. */
  async special(kind: 'opening' | 'closing'): Promise<void> {
    await this.#running?.catch(() => undefined);
    await this.#start(kind === 'opening', kind === 'closing');
  }

  #start(restage: boolean, isClean: boolean): Promise<void> {
    const run = this.#checkpoint(restage, isClean)
      .catch((error: unknown) => {
        // What was gathered waits for the next one; what was staged may be in half: stage all of it again.
        this.#restageNext = true;
        throw error;
      })
      .finally(() => (this.#running = undefined));
    this.#running = run;
    return run;
  }

  async #checkpoint(forceRestage: boolean, isClean: boolean): Promise<void> {
    const { media, meta, staging, operations, allocator, describe, checkpointed } = this.#modules;
    if (this.#failure) throw this.#failure;
    const operation = operations.next();
    const restage = forceRestage || this.#restageNext || staging.segmentBytes > SEGMENT_BYTES_MAX;
    // Until this transaction is durable, recovery starts from the old one and reads the old segments too.
    if (restage) {
      staging.rotate();
      this.#restageNext = true;
    }
    const firstSegment = restage ? staging.segmentNumber : this.#firstSegment;
    const sink = this.#sink(operation, restage);
    for (const participant of [...this.#inner, ...this.#participants]) participant.checkpoint(sink);
    const state: StateRecord = { operation, isClean, firstSegment, open: allocator.openSuperblocks(), ...describe() };
    sink.put(metaNamespaces.drive, ['state'], state);
    await this.#syncAll(staging, media);
    const changes = this.#uncommitted;
    this.#uncommitted = [];
    try {
      await meta.commit(changes);
    } catch (error) {
      this.#uncommitted = [...changes, ...this.#uncommitted];
      throw error;
    }
    if (restage) this.#restageNext = false;
    this.#firstSegment = firstSegment;
    this.checkpointCount++;
    this.lastOperation = operation;
    staging.removeBefore(firstSegment);
    checkpointed(operation);
  }

  #sink(operation: number, restage: boolean): CheckpointSink {
    const { staging } = this.#modules;
    const changes = this.#uncommitted;
    return {
      operation,
      restage,
      stage: (owner, payload) => void staging.append(owner === stagingOwners.kv ? 'kv' : 'block', payload),
      put: (namespace: number, key: MetaKey, value: unknown) =>
        void changes.push({ kind: 'put', namespace, key, value }),
      remove: (namespace: number, key: MetaKey) => void changes.push({ kind: 'remove', namespace, key }),
    };
  }

  syncStaging(): Promise<void> {
    if (this.#syncNext) return this.#syncNext;
    if (!this.#syncRunning) return this.#startSync();
    this.#syncNext = this.#syncRunning
      .then(
        () => undefined,
        () => undefined,
      )
      .then(() => {
        this.#syncNext = undefined;
        return this.#startSync();
      });
    return this.#syncNext;
  }

  #startSync(): Promise<void> {
    const run = this.#sync().finally(() => (this.#syncRunning = undefined));
    this.#syncRunning = run;
    return run;
  }

  async #sync(): Promise<void> {
    if (this.#failure) throw this.#failure;
    for (const participant of this.#inner) participant.stageBuffered?.(false);
    for (const participant of this.#participants) participant.stageBuffered(this.#log);
    await this.#syncAll(this.#modules.staging, this.#modules.media);
  }

  /** After a failed sync nobody knows what is on disk, and a second try may lie: the drive stops promising. */
  async #syncAll(staging: StagingFile, media: Media): Promise<void> {
    this.mediaSyncCount++;
    try {
      await Promise.all([staging.sync(), media.sync()]);
    } catch (error) {
      this.#failure ??= new DriveError('writeFault', 'an earlier sync failed; restart the drive to recover', {
        cause: error,
      });
      throw error;
    }
  }

  /** Recovery: where the last transaction said the log begins. */
  restore(firstSegment: number): void {
    this.#firstSegment = firstSegment;
  }
}
