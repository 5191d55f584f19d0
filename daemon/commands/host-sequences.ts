import type { ElementType } from '../../spec/element-type.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { HostAccount } from '../hosts/host-account.ts';
import type {
  AppendSource,
  KvStore,
  LayerView,
  OwnedStore,
  ReadBackRequest,
  SequenceRequest,
  SequenceShape,
  SequenceSummary,
} from '../kv/contract.ts';
import type { DeviceJob } from '../timing/device-job.ts';

export interface HostSequencesOptions {
  readonly owner: bigint;
  /** Whether the host may name its own sequences only. May change while it is connected. */
  readonly isConfined: () => boolean;
}

/**
 * The sequences as one host may see them, and as many as it may have. To a host that is confined to its own, others are
 * as if they were not there: the status is that of ids that nobody has, and it lets the drive choose ids, since a choice
 * that is refused would tell that somebody else has it.
 */
export class HostSequences implements KvStore {
  readonly #owner: bigint;
  readonly #isConfined: () => boolean;
  readonly #kv: OwnedStore;
  readonly #account: HostAccount;

  constructor(options: HostSequencesOptions, modules: { kv: OwnedStore; account: HostAccount }) {
    this.#owner = options.owner;
    this.#isConfined = options.isConfined;
    this.#kv = modules.kv;
    this.#account = modules.account;
  }

  /** DriveError unknownSequence, as for an id that is not there. */
  #mayName(id: bigint): void {
    if (this.#isConfined() && this.#kv.ownerOf(id) !== this.#owner)
      throw new DriveError('unknownSequence', `sequence ${id}`);
  }

  #mayMake(id: bigint): void {
    if (id !== 0n && this.#isConfined()) {
      throw new DriveError('invalidField', `sequence id ${id}: this host lets the drive choose; allowed: 0`);
    }
    this.#account.check('sequences', 1, this.#kv.holding(this.#owner).sequenceCount);
  }

  create(request: SequenceRequest): bigint {
    this.#mayMake(request.id);
    return this.#kv.create(request);
  }

  fork(
    sourceId: bigint,
    tokenCount: number,
    request: Omit<SequenceRequest, 'shape'>,
    job?: DeviceJob,
  ): Promise<bigint> {
    this.#mayName(sourceId);
    this.#mayMake(request.id);
    const rowBytes = this.#kv.appendSizeBytes(sourceId, 1, undefined);
    const { lengths } = this.#kv.inspect(sourceId);
    const bytes = lengths.reduce((sum, length) => sum + Math.min(length, tokenCount) * rowBytes, 0);
    return this.#holding(bytes, () => this.#kv.fork(sourceId, tokenCount, request, job));
  }

  append(
    id: bigint,
    layer: number,
    position: number,
    tokenCount: number,
    source: AppendSource,
    job?: DeviceJob,
  ): Promise<number> {
    this.#mayName(id);
    const bytes = this.#kv.appendSizeBytes(id, tokenCount, undefined);
    const append = (): Promise<number> => this.#kv.append(id, layer, position, tokenCount, source, job);
    // A repeat of what is there takes nothing, so a full host may repeat.
    const isRepeat = !this.#fits(bytes) && position + tokenCount <= (this.#kv.inspect(id).lengths[layer] ?? 0);
    return isRepeat ? append() : this.#holding(bytes, append);
  }

  #fits(bytes: number): boolean {
    return this.#account.fits('kvBytes', bytes, this.#kv.holding(this.#owner).bytes);
  }

  /** Work that may end in the host's holding so much more. DriveError hostQuota. */
  async #holding<T>(bytes: number, work: () => Promise<T>): Promise<T> {
    this.#account.check('kvBytes', bytes, this.#kv.holding(this.#owner).bytes);
    this.#account.add('kvBytes', bytes);
    try {
      return await work();
    } finally {
      this.#account.give('kvBytes', bytes);
    }
  }

  async truncate(id: bigint, layer: number | undefined, length: number, job?: DeviceJob): Promise<void> {
    this.#mayName(id);
    await this.#kv.truncate(id, layer, length, job);
  }

  async reclaim(id: bigint): Promise<void> {
    this.#mayName(id);
    await this.#kv.reclaim(id);
  }

  async clear(): Promise<void> {
    assert(!this.#isConfined(), 'Format NVM is denied to a host that is confined to its own sequences');
    await this.#kv.clear();
  }

  view(id: bigint, layer: number): LayerView {
    this.#mayName(id);
    return this.#kv.view(id, layer);
  }

  shape(id: bigint): SequenceShape {
    this.#mayName(id);
    return this.#kv.shape(id);
  }

  summary(id: bigint): SequenceSummary {
    this.#mayName(id);
    return this.#kv.summary(id);
  }

  inspect(id: bigint): SequenceSummary {
    this.#mayName(id);
    return this.#kv.inspect(id);
  }

  list(after: bigint, countMax: number): bigint[] {
    return this.#isConfined() ? this.#kv.listOf(this.#owner, after, countMax) : this.#kv.list(after, countMax);
  }

  async readBack(request: ReadBackRequest, targetOffset: number, job?: DeviceJob): Promise<void> {
    this.#mayName(request.id);
    await this.#kv.readBack(request, targetOffset, job);
  }

  readBackSizeBytes(request: ReadBackRequest): number {
    this.#mayName(request.id);
    return this.#kv.readBackSizeBytes(request);
  }

  appendSizeBytes(id: bigint, tokenCount: number, elementType: ElementType | undefined): number {
    this.#mayName(id);
    return this.#kv.appendSizeBytes(id, tokenCount, elementType);
  }
}
