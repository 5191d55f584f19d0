/** A drive made, used, stopped and killed on a recorded disk, and what it had promised at each point. */
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { type FormatOptions, formatDrive } from '../../daemon/ftl/format.ts';
import { type FtlStores, openFolder } from '../../daemon/ftl/ftl.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { lbaContent } from '../ftl/open-drive.ts';
import { appendRows } from '../kv/fixture.ts';
import type { CellsIo } from '../../daemon/nand/media-file.ts';
import { skipDirect } from '../nand/direct-file.ts';
import { type ModelSequence, SequenceModel } from '../kv/sequence-model.ts';
import { DrivePromises } from './drive-promises.ts';
import { RecordedDisk } from './recorded-disk.ts';
import { openWholeFtl, type WholeFtl } from './whole-ftl.ts';

/** Small, with blocks of few pages, so that superblocks come round again. */
export const smallDrive: FormatOptions = {
  blockCapacityBytes: 2 ** 19,
  kvCapacityBytes: 2 ** 21,
  pageSizeBytes: 8192,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.1,
  force: false,
};

const shape: SequenceShape = {
  layerCount: 2,
  kvHeadCount: 1,
  headDimK: 16,
  headDimV: 16,
  elementTypeK: 'f32',
  elementTypeV: 'f32',
  groupTokens: 4,
};
const SEQUENCES_MAX = 6;

/** Opens a drive's folder on a recorded disk; metadata commits are recorded too. */
export function openRecorded(disk: RecordedDisk, folder: string, io: CellsIo = 'mapped'): FtlStores {
  const stores = openFolder(folder, disk, io);
  return { ...stores, meta: disk.recordStore(folder, stores.meta) };
}

/** Ways to read and write cells, with why one can't be tried here, or false. */
export const cellsIos: readonly { readonly name: string; readonly io: CellsIo; readonly skip: string | false }[] = [
  { name: 'mapped', io: 'mapped', skip: false },
  { name: 'direct', io: { direct: { cacheBytes: 4096 } }, skip: skipDirect },
];

export interface Moment {
  /** Events before it had happened. */
  readonly at: number;
  readonly promises: DrivePromises;
}

export class RecordedRun {
  readonly disk: RecordedDisk;
  /** After each thing that was promised or begun. */
  readonly moments: Moment[] = [];
  readonly #folder: string;
  readonly #io: CellsIo;
  readonly #random: Random;
  readonly #promises: DrivePromises;
  #drive: WholeFtl | undefined;
  #nextToken = 0;

  /** `root` is an empty folder; the drive goes into one inside it. */
  constructor(root: string, seed: number, io: CellsIo = 'mapped') {
    this.disk = new RecordedDisk(root);
    this.#io = io;
    this.#folder = `${root}/drive`;
    this.#random = createSeededRandom(seed);
    this.#promises = new DrivePromises(smallDrive.blockCapacityBytes / 4096);
  }

  async make(): Promise<void> {
    this.disk.beginPhase('format');
    await formatDrive(this.#folder, smallDrive, this.#random, this.disk);
    this.disk.beginPhase('run');
    this.#note();
  }

  /** Does some random things, each noted before and after; restarts now and then, in order and not. Then stops. */
  async work(steps: number): Promise<DrivePromises> {
    await this.#work(steps);
    await this.#drive!.close();
    this.#drive = undefined;
    this.#promises.allDurable();
    this.#note();
    return this.#promises.copy();
  }

  /** Is killed at the end. Returns what was durable by the last checkpoint; what was since is noted as begun. */
  async workAndKill(steps: number): Promise<DrivePromises> {
    await this.#work(steps);
    await this.#makeDurable(() => this.#drive!.ftl.durability.flush());
    const promises = this.#promises.copy();
    for (let step = 0; step < 12; step++) await this.#write(step % 3 === 0);
    for (const [lba, block] of this.#promises.blocks.entries()) promises.blocks[lba]!.issued = block.issued;
    await this.#drive!.abandon();
    this.#drive = undefined;
    return promises;
  }

  async #work(steps: number): Promise<void> {
    this.#drive ??= await this.#open();
    for (let step = 0; step < steps; step++) {
      await this.#step();
      this.#note();
    }
  }

  #note(): void {
    this.moments.push({ at: this.disk.events.length, promises: this.#promises.copy() });
  }

  /** Notes what is about to be done. */
  async #issue<T>(action: () => Promise<T> | T): Promise<T> {
    this.#note();
    return action();
  }

  async #open(): Promise<WholeFtl> {
    const drive = await openWholeFtl(openRecorded(this.disk, this.#folder, this.#io), this.#random);
    await this.#promises.adopt(drive);
    this.#note();
    return drive;
  }

  #below(end: number): number {
    return this.#random.nextUint32() % end;
  }

  async #step(): Promise<void> {
    const roll = this.#below(100);
    if (roll < 34) return this.#write(roll < 6);
    if (roll < 40) return this.#deallocate();
    if (roll < 78) return this.#changeSequences();
    if (roll < 84) return this.#makeDurable(() => this.#drive!.ftl.durability.flush());
    // A write that is durable by itself while a checkpoint is under way.
    if (roll < 89) return this.#flushAndWrite();
    if (roll < 95) return this.#makeDurable(() => this.#drive!.ftl.durability.syncStaging());
    await (roll < 97 ? this.#stop() : this.#drive!.abandon());
    this.#drive = await this.#open();
  }

  async #stop(): Promise<void> {
    await this.#drive!.close();
    this.#promises.allDurable();
    this.#note();
  }

  async #makeDurable(action: () => Promise<void>): Promise<void> {
    await action();
    this.#promises.allDurable();
  }

  async #flushAndWrite(): Promise<void> {
    const flush = this.#drive!.ftl.durability.flush();
    await this.#write(true);
    this.#note();
    await flush;
  }

  async #write(fua: boolean): Promise<void> {
    const { blocks } = this.#drive!.ftl;
    const count = 1 + this.#below(5);
    // Mostly the same ones, so that pages become stale and superblocks come round.
    const lba = this.#below(2) === 0 ? this.#below(24) : this.#below(blocks.lbaCount - count);
    const versions = Array.from({ length: count }, (_, i) => this.#promises.issue(lba + i));
    const content = Buffer.concat(versions.map((version, i) => lbaContent(lba + i, version)));
    await this.#issue(() => blocks.write(lba, count, content, fua));
    versions.forEach((version, i) => this.#promises.completed(lba + i, version));
    if (fua) this.#promises.allDurable();
  }

  async #deallocate(): Promise<void> {
    const { blocks } = this.#drive!.ftl;
    const count = 1 + this.#below(4);
    const lba = this.#below(24);
    const versions = Array.from({ length: count }, (_, i) => this.#promises.issue(lba + i, true));
    await this.#issue(() => blocks.deallocate(lba, count));
    versions.forEach((version, i) => this.#promises.completed(lba + i, version));
  }

  async #changeSequences(): Promise<void> {
    const { live } = this.#promises.sequences;
    const roll = this.#below(100);
    const sequence = live[this.#below(Math.max(1, live.length))];
    const isFull = this.#drive!.ftl.kv.freePageCount < 32;
    if (sequence === undefined || (live.length < SEQUENCES_MAX && roll < 10)) return this.#create();
    if (roll < 62 && !isFull) return this.#append(sequence);
    if (roll < 72 && live.length < SEQUENCES_MAX) return this.#fork(sequence);
    if (roll < 90 && !isFull) return this.#truncate(sequence);
    this.#promises.operation++;
    sequence.diedOperation = this.#promises.operation;
    await this.#issue(() => this.#drive!.store.reclaim(sequence.id));
  }

  /** Ids are asked for: the model must know them before the drive is asked. */
  #nextId(): bigint {
    return BigInt(this.#promises.operation + 1);
  }

  async #create(): Promise<void> {
    const id = this.#nextId();
    this.#promises.sequences.create(id, shape, ++this.#promises.operation);
    const request = { shape, id, label: 'recorded', leaseSeconds: 0, owner: 1n };
    await this.#issue(() => this.#drive!.store.create(request));
  }

  async #append(sequence: ModelSequence): Promise<void> {
    const layer = this.#below(shape.layerCount);
    const tokens = SequenceModel.tokens(sequence, layer);
    const position = tokens.length;
    const fresh = Array.from({ length: 1 + this.#below(9) }, () => this.#nextToken++);
    tokens.push(...fresh);
    await this.#issue(() => appendRows(this.#drive!, sequence.id, layer, position, fresh));
  }

  async #fork(parent: ModelSequence): Promise<void> {
    const id = this.#nextId();
    const tokenCount = this.#below(SequenceModel.tokens(parent, 0).length + 2);
    this.#promises.sequences.fork(parent, id, tokenCount, ++this.#promises.operation);
    const request = { id, label: 'fork', leaseSeconds: 0, owner: 1n };
    await this.#issue(() => this.#drive!.store.fork(parent.id, tokenCount, request));
  }

  async #truncate(sequence: ModelSequence): Promise<void> {
    const layer = this.#below(shape.layerCount);
    const { length } = SequenceModel.tokens(sequence, layer);
    if (length === 0) return;
    const to = this.#below(length);
    this.#promises.sequences.truncate(sequence, layer, to, ++this.#promises.operation);
    await this.#issue(() => this.#drive!.store.truncate(sequence.id, layer, to));
  }
}
