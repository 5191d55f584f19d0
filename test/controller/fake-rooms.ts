/** Rooms below the front that a test can hold back, count, and look into. */
import type { DeviceJob } from '../../daemon/timing/device-job.ts';
import type { Arena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import type { AttendCounts, AttendOptions, AttendTarget, AttentionEngine } from '../../daemon/attention/contract.ts';
import type { BlockNamespace, Durability } from '../../daemon/ftl/contract.ts';
import type { KvStore } from '../../daemon/kv/contract.ts';

const LBA_BYTES = 4096;

/** Holds callers until it is opened. Open at first. */
export class Gate {
  #opened: Promise<void> = Promise.resolve();
  #open: () => void = () => undefined;
  waitingCount = 0;

  shut(): void {
    this.#opened = new Promise((resolve) => (this.#open = resolve));
  }

  open(): void {
    this.#open();
    this.#opened = Promise.resolve();
  }

  async pass(): Promise<void> {
    this.waitingCount++;
    await this.#opened;
    this.waitingCount--;
  }
}

export class FakeBlocks implements BlockNamespace {
  readonly lbaCount: number;
  readonly bytes: Uint8Array;
  readonly gate = new Gate();
  /** Nothing is in flash, and what can be done at once is. */
  isCached = false;
  fuaCount = 0;
  failure: Error | undefined;

  constructor(lbaCount: number) {
    this.lbaCount = lbaCount;
    this.bytes = new Uint8Array(lbaCount * LBA_BYTES);
  }

  async read(lba: number, lbaCount: number, target: Uint8Array): Promise<void> {
    this.#check(lba, lbaCount);
    await this.gate.pass();
    if (this.failure) throw this.failure;
    target.set(this.bytes.subarray(lba * LBA_BYTES, (lba + lbaCount) * LBA_BYTES));
  }

  async write(lba: number, lbaCount: number, source: Uint8Array, fua: boolean): Promise<void> {
    this.#check(lba, lbaCount);
    await this.gate.pass();
    if (fua) this.fuaCount++;
    this.bytes.set(source.subarray(0, lbaCount * LBA_BYTES), lba * LBA_BYTES);
  }

  readNow(lba: number, lbaCount: number): boolean {
    this.#check(lba, lbaCount);
    return false;
  }

  isInFlash(lba: number, lbaCount: number): boolean {
    this.#check(lba, lbaCount);
    return !this.isCached;
  }

  canWriteNow(): boolean {
    return this.isCached;
  }

  writeNow(lba: number, lbaCount: number, source: Uint8Array): void {
    this.#check(lba, lbaCount);
    this.bytes.set(source, lba * LBA_BYTES);
  }

  bookRead(lba: number, lbaCount: number, job: DeviceJob): void {
    for (let i = 0; i < lbaCount; i++) job.readToHost(lba + i, LBA_BYTES);
  }

  async deallocate(lba: number, lbaCount: number): Promise<void> {
    this.#check(lba, lbaCount);
    this.bytes.fill(0, lba * LBA_BYTES, (lba + lbaCount) * LBA_BYTES);
  }

  clear(): void {
    this.bytes.fill(0);
  }

  #check(lba: number, lbaCount: number): void {
    if (lba + lbaCount > this.lbaCount) throw new DriveError('lbaRange', `${lba}+${lbaCount}`);
  }
}

export class FakeDurability implements Durability {
  readonly gate = new Gate();
  flushCount = 0;
  stagingSyncCount = 0;
  onStagingSync: () => void = () => undefined;

  async flush(): Promise<void> {
    await this.gate.pass();
    this.flushCount++;
  }

  async syncStaging(): Promise<void> {
    this.stagingSyncCount++;
    this.onStagingSync();
  }
}

/** Attention in double precision over rows that are read back: slow, plain, and nothing of the real one. f32 only. */
export class FakeAttention implements AttentionEngine {
  readonly #arena: Arena;
  readonly #kv: KvStore;
  readonly gate = new Gate();

  constructor(arena: Arena, kv: KvStore) {
    this.#arena = arena;
    this.#kv = kv;
  }

  async attend(options: AttendOptions, targets: readonly AttendTarget[]): Promise<AttendCounts> {
    const lengths = targets.map(({ sequenceId, layer, tokenEnd }, index) => {
      const length = this.#kv.summary(sequenceId).lengths[layer] as number;
      if (tokenEnd !== undefined && tokenEnd > length) {
        throw new DriveError('tokenRange', `token ${tokenEnd} of ${length}`, { result: index });
      }
      return tokenEnd ?? length;
    });
    await this.gate.pass();
    let bufferedTokenCount = 0;
    for (const [index, target] of targets.entries()) {
      const end = lengths[index] as number;
      await this.#attendOne(options, target, end);
      bufferedTokenCount += end - target.tokenStart;
    }
    return { flashTokenCount: 0, bufferedTokenCount, pageCount: 0 };
  }

  async #attendOne(options: AttendOptions, target: AttendTarget, tokenEnd: number): Promise<void> {
    const { kvHeadCount, headDimK, headDimV } = this.#kv.shape(target.sequenceId);
    const tokenCount = tokenEnd - target.tokenStart;
    const request = {
      id: target.sequenceId,
      layer: target.layer,
      part: 3 as const,
      tokenStart: target.tokenStart,
      tokenCount,
      firstHead: 0,
      headCount: kvHeadCount,
      elementType: 'f32' as const,
      headMajor: false,
    };
    const at = this.#arena.allocate(this.#kv.readBackSizeBytes(request));
    await this.#kv.readBack(request, at);
    const keys = new Float32Array(this.#arena.buffer, at, tokenCount * kvHeadCount * headDimK);
    const values = new Float32Array(this.#arena.buffer, at + keys.byteLength, tokenCount * kvHeadCount * headDimV);
    const { queryHeadCount, queryTokenCount } = target;
    const rowCount = queryHeadCount * queryTokenCount;
    const queries = new Float32Array(this.#arena.buffer, target.queryOffset, rowCount * headDimK);
    const outputs = new Float32Array(this.#arena.buffer, target.outputOffset, rowCount * headDimV);
    const statistics = options.statistics
      ? new Float32Array(this.#arena.buffer, target.outputOffset + outputs.byteLength, rowCount * 2)
      : undefined;
    for (let row = 0; row < rowCount; row++) {
      const head = Math.floor((target.firstQueryHead + (row % queryHeadCount)) / target.queryHeadsPerKvHead);
      const position = target.queryPosition + Math.floor(row / queryHeadCount);
      const seen = options.causal ? Math.max(0, Math.min(tokenCount, position + 1 - target.tokenStart)) : tokenCount;
      const scale = options.scale || 1 / Math.sqrt(headDimK);
      const logits: number[] = [];
      for (let token = 0; token < seen; token++) {
        let sum = 0;
        for (let i = 0; i < headDimK; i++) {
          sum +=
            (queries[row * headDimK + i] as number) * (keys[(token * kvHeadCount + head) * headDimK + i] as number);
        }
        logits.push(sum * scale);
      }
      const maximum = Math.max(...logits);
      const weights = logits.map((logit) => Math.exp(logit - maximum));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      for (let i = 0; i < headDimV; i++) {
        let sum = 0;
        weights.forEach((weight, token) => {
          sum += weight * (values[(token * kvHeadCount + head) * headDimV + i] as number);
        });
        outputs[row * headDimV + i] = sum / total;
      }
      if (statistics) {
        statistics[row * 2] = maximum;
        statistics[row * 2 + 1] = maximum + Math.log(total);
      }
    }
    this.#arena.free(at);
  }
}
