/** The stores of a drive in memory, which a power cut can rob of what was not synced. */
import { MEDIA_FORMAT_VERSION } from '../../spec/media-format/drive-superblock.ts';
import type { MetaChange, MetaKey, MetaRecord, MetaStore } from '../../daemon/meta/contract.ts';
import type { Random } from '../../daemon/base/random.ts';
import type { FtlStores } from '../../daemon/ftl/ftl.ts';
import type { StagingSegment, StagingStore } from '../../daemon/ftl/staging-log.ts';
import { type Chip, idealChip } from '../../daemon/nand/chip.ts';
import { type Geometry, type GeometryRequest, planGeometry } from '../../daemon/nand/geometry.ts';
import { MediaMemory, type UnsyncedFate } from '../../daemon/nand/media-memory.ts';

const compareKeys = (a: MetaKey, b: MetaKey): number => {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const x = a[i]!;
    const y = b[i]!;
    if (typeof x !== typeof y) return typeof x === 'number' ? -1 : 1;
    if (x !== y) return x < y ? -1 : 1;
  }
  return a.length - b.length;
};

/** LMDB's contract: all changes of a transaction or none, durable when `commit` resolves. */
export class MetaMemory implements MetaStore {
  readonly records = new Map<string, MetaRecord & { namespace: number }>();
  onStep: () => void = () => undefined;
  /** Sees every transaction before it counts. */
  onCommit: (changes: readonly MetaChange[]) => void = () => undefined;

  get(namespace: number, key: MetaKey): unknown {
    return structuredClone(this.records.get(JSON.stringify([namespace, ...key]))?.value);
  }

  range(namespace: number): Iterable<MetaRecord> {
    const found = [...this.records.values()].filter((record) => record.namespace === namespace);
    return found
      .sort((a, b) => compareKeys(a.key, b.key))
      .map(({ key, value }) => ({ key, value: structuredClone(value) }));
  }

  async commit(changes: readonly MetaChange[]): Promise<void> {
    const copies = structuredClone(changes);
    await Promise.resolve();
    this.onStep();
    this.onCommit(copies);
    for (const change of copies) {
      const text = JSON.stringify([change.namespace, ...change.key]);
      if (change.kind === 'remove') this.records.delete(text);
      else this.records.set(text, { namespace: change.namespace, key: change.key, value: change.value });
    }
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

class SegmentMemory implements StagingSegment {
  bytes = new Uint8Array(0);
  syncedBytes = 0;
  onStep: (what: 'append' | 'sync') => void;

  constructor(onStep: (what: 'append' | 'sync') => void) {
    this.onStep = onStep;
  }

  append(bytes: Uint8Array): void {
    this.onStep('append');
    const joined = new Uint8Array(this.bytes.length + bytes.length);
    joined.set(this.bytes);
    joined.set(bytes, this.bytes.length);
    this.bytes = joined;
  }

  async sync(): Promise<void> {
    this.onStep('sync');
    const covered = this.bytes.length;
    await Promise.resolve();
    this.syncedBytes = Math.max(this.syncedBytes, covered);
  }

  close(): void {}

  copy(): SegmentMemory {
    const copied = new SegmentMemory(() => undefined);
    copied.bytes = this.bytes.slice();
    copied.syncedBytes = this.syncedBytes;
    return copied;
  }
}

export class StagingMemory implements StagingStore {
  readonly segments = new Map<number, SegmentMemory>();
  onStep: (what: 'append' | 'sync') => void = () => undefined;

  list(): number[] {
    return [...this.segments.keys()].sort((a, b) => a - b);
  }

  read(segment: number): Uint8Array {
    return this.segments.get(segment)!.bytes.slice();
  }

  create(segment: number): StagingSegment {
    const created = new SegmentMemory((what) => this.onStep(what));
    this.segments.set(segment, created);
    return created;
  }

  remove(segment: number): void {
    this.segments.delete(segment);
  }

  /** Of what was appended since the last sync a beginning is left, cut anywhere. */
  powerCut(random: Random): void {
    for (const segment of this.segments.values()) {
      const unsynced = segment.bytes.length - segment.syncedBytes;
      const kept = unsynced === 0 ? 0 : random.nextUint32() % (unsynced + 1);
      segment.bytes = segment.bytes.slice(0, segment.syncedBytes + kept);
      segment.syncedBytes = segment.bytes.length;
    }
  }
}

/** A drive's stores that outlive the FTL that is open on them. */
export class MemoryDriveStores {
  readonly geometry: Geometry;
  readonly media: MediaMemory;
  readonly meta = new MetaMemory();
  readonly staging = new StagingMemory();

  readonly request: Partial<GeometryRequest>;
  readonly chip: Chip;

  constructor(request: Partial<GeometryRequest> = {}, chip: Chip = idealChip) {
    this.request = request;
    this.chip = chip;
    this.geometry = planGeometry({
      blockCapacityBytes: 4 * 2 ** 20,
      kvCapacityBytes: 4 * 2 ** 20,
      pageSizeBytes: 16_384,
      channelCount: 2,
      diesPerChannel: 1,
      overProvisioning: 0.1,
      ...request,
    });
    this.media = new MediaMemory(this.geometry);
  }

  stores(): FtlStores {
    const { geometry, chip, media, meta, staging } = this;
    return {
      uuid: new Uint8Array(16).fill(7),
      geometry,
      chip,
      formatVersion: MEDIA_FORMAT_VERSION,
      media,
      meta,
      staging,
      release: () => undefined,
    };
  }

  /** What the next start finds. The run before the cut goes on in its own world, unseen. */
  afterPowerCut(random: Random): MemoryDriveStores {
    const left = new MemoryDriveStores(this.request, this.chip);
    this.media.copyTo(left.media);
    for (const [key, record] of this.meta.records) left.meta.records.set(key, structuredClone(record));
    for (const [number, segment] of this.staging.segments) left.staging.segments.set(number, segment.copy());
    const fates: UnsyncedFate[] = ['kept', 'lost', 'torn'];
    left.media.powerCut(() => fates[random.nextUint32() % 3]!);
    left.staging.powerCut(random);
    return left;
  }
}
