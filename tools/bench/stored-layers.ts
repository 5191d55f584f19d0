/**
 * Layers of K and V on a real flash in this process, as prefill or decode leaves them, and the attention jobs that the
 * drive would cut from them: what kernels are measured on.
 */
import { join } from 'node:path';
import { EXPRESS_BYTES_MAX } from '../../daemon/attention/command.ts';
import { layoutOf } from '../../daemon/attention/plan.ts';
import { type Arena, createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom, systemRandom } from '../../daemon/base/random.ts';
import { Ftl, openFolder } from '../../daemon/ftl/ftl.ts';
import { frameArenas, type KernelResources } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { cellOffset } from '../../daemon/nand/geometry.ts';
import { type ElementType, elementTypes, type QuantisedType } from '../../spec/element-type.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { formatFolder } from '../cli/format-drive.ts';
import { createTemporaryFolder, type TemporaryFolder } from '../cli/temporary-folder.ts';
import { type Frame, type JobShape, writeJobs } from './attend-jobs.ts';
import { randomHalves } from './drive-layers.ts';
import { type BenchShape, layerBytes } from './shapes.ts';

const MIB = 2 ** 20;
/** What one append of a prefill carries: nearly the most that one command can. */
const PREFILL_BYTES = 15 * MIB;
const JOBS_BYTES = 64 * MIB;
const DRIVE_NAME = 'drive';

/**
 * Where pages lie: as tokens came as whole prompts, layer by layer; as they came one after another through all layers; and
 * the pages of the latter in no order at all.
 */
export type PageOrder = 'prefill' | 'decode' | 'shuffled';

/** What is stored: f16 in an order, or another type as prefill leaves it. */
export type Storage = PageOrder | QuantisedType | 'bf16';

/** [layer][KV head][group]. */
type LayerFrames = readonly (readonly (readonly Frame[])[])[];

interface Rooms {
  readonly folder: TemporaryFolder;
  readonly arena: Arena;
  readonly store: SequenceStore;
  readonly ftl: Ftl;
}

export class StoredLayers {
  /** For the threads that run jobs. */
  readonly resources: KernelResources;
  /** Of the media mapping: what the layers were written to. */
  readonly range: { readonly offset: number; readonly sizeBytes: number; readonly media: true };
  readonly #rooms: Rooms;
  readonly #jobs: ReadonlyMap<Storage, StoredJobs>;
  #isHandedOver = false;

  private constructor(
    rooms: Rooms,
    resources: KernelResources,
    shape: BenchShape,
    frames: ReadonlyMap<Storage, LayerFrames>,
  ) {
    this.#rooms = rooms;
    this.resources = resources;
    this.#jobs = new Map(
      [...frames].map(([storage, layers]) => [storage, jobsOver(rooms.arena, shape, storage, layers)]),
    );
    const offsets = [...frames.values()].flat(3).flatMap(({ kOffset, vOffset }) => [kOffset, vOffset]);
    const offset = offsets.reduce((a, b) => Math.min(a, b));
    this.range = { offset, sizeBytes: offsets.reduce((a, b) => Math.max(a, b)) - offset, media: true };
  }

  /** A new drive, filled in the orders asked for. Native kernels only: they map the media. */
  static async open(
    shape: BenchShape,
    options: { readonly pageSizeBytes: number; readonly storages: readonly Storage[] },
  ): Promise<StoredLayers> {
    const folder = createTemporaryFolder('attndrive-bench-');
    try {
      const written = options.storages.filter((storage) => storage !== 'shuffled');
      const bytes = layerBytes(shape) * shape.layerCount * written.length;
      const drive = join(folder.path, DRIVE_NAME);
      await formatFolder(drive, {
        blockCapacityBytes: 16 * MIB,
        kvCapacityBytes: Math.ceil((bytes * 1.1) / MIB) * MIB + 32 * MIB,
        pageSizeBytes: options.pageSizeBytes,
      });
      const stores = openFolder(drive);
      const arena = createArena(PREFILL_BYTES + JOBS_BYTES + 32 * MIB);
      const files = stores.media.files!;
      const media = { fileDescriptor: files.cellsDescriptor, sizeBytes: files.cellsSizeBytes };
      const resources = { memory: arena.memory, media };
      const kernels = loadKernels('native', resources);
      const store = new SequenceStore({ arena, kernels, clock: systemClock });
      const modules = { arena, kernels, clock: systemClock, random: systemRandom, logger: silentLogger };
      const rooms = { folder, arena, store, ftl: await Ftl.open(stores, { ...modules, kvRecovery: store }) };
      const frames = new Map<Storage, LayerFrames>();
      for (const storage of written) frames.set(storage, await fill(rooms, shape, storage));
      // Or the system writes the pages to the disk while they are measured.
      await rooms.ftl.durability.flush();
      if (options.storages.includes('shuffled')) frames.set('shuffled', shuffledFrames(frames.get('decode')!));
      return new StoredLayers(rooms, resources, shape, frames);
    } catch (error) {
      folder.remove();
      throw error;
    }
  }

  /** Jobs as the drive cuts them, one KV head after another: offsets in the arena. */
  jobs(storage: Storage): readonly number[] {
    return this.#jobs.get(storage)?.offsets ?? [];
  }

  /** K and V bytes that a job's tokens have as f16, on average. */
  jobBytes(storage: Storage): number {
    return this.#jobs.get(storage)?.f16Bytes ?? 0;
  }

  /**
   * Closes the drive in order, for a daemon to open: its folder. What was mapped meanwhile shows the same pages on. Only
   * with one storage. `close` removes the folder.
   */
  async handOver(): Promise<string> {
    this.#isHandedOver = true;
    await this.#rooms.ftl.durability.flush();
    this.#rooms.store.close();
    await this.#rooms.ftl.close();
    return join(this.#rooms.folder.path, DRIVE_NAME);
  }

  async close(): Promise<void> {
    if (!this.#isHandedOver) {
      this.#rooms.store.close();
      await this.#rooms.ftl.abandon();
    }
    this.#rooms.folder.remove();
  }
}

const typeOf = (storage: Storage): ElementType =>
  storage === 'prefill' || storage === 'decode' || storage === 'shuffled' ? 'f16' : storage;

const storedShape = ({ layerCount, kvHeadCount, headDim }: BenchShape, storage: Storage): SequenceShape => ({
  layerCount,
  kvHeadCount,
  headDimK: headDim,
  headDimV: headDim,
  elementTypeK: typeOf(storage),
  elementTypeV: typeOf(storage),
  groupTokens: 0,
});

interface StoredJobs {
  readonly offsets: readonly number[];
  readonly f16Bytes: number;
}

function jobsOver(arena: Arena, shape: BenchShape, storage: Storage, layers: LayerFrames): StoredJobs {
  const { queryHeadCount, kvHeadCount, headDim } = shape;
  const { tokenCount: groupTokens } = layers[0]![0]![0]!;
  const { chunkTokens } = layoutOf({ ...storedShape(shape, storage), groupTokens });
  const layerTokens = layers[0]![0]!.length * groupTokens;
  const rowPairBytes = 2 * rowSizeBytes(typeOf(storage), headDim);
  const jobShape: JobShape = {
    queryCount: queryHeadCount / kvHeadCount,
    headDim,
    elementType: elementTypes[typeOf(storage)].code,
    groupsPerJob: chunkTokens / groupTokens,
    isLong: kvHeadCount * layerTokens * rowPairBytes > EXPRESS_BYTES_MAX,
  };
  const heads = layers.flat();
  const offsets = heads.flatMap((groups) => writeJobs(arena, groups, jobShape));
  const tokenCount = heads.length * heads[0]!.length * groupTokens;
  return { offsets, f16Bytes: layerBytes({ headDim, kvHeadCount: 1, tokenCount }) / offsets.length };
}

/** Appends all layers. */
async function fill(rooms: Rooms, shape: BenchShape, storage: Exclude<Storage, 'shuffled'>): Promise<LayerFrames> {
  const { arena, store } = rooms;
  const { kvHeadCount, headDim, layerCount, tokenCount } = shape;
  const id = store.create({ shape: storedShape(shape, storage), id: 0n, label: storage, leaseSeconds: 0, owner: 1n });
  const { groupTokens } = store.shape(id);
  const tokenBytes = 2 * kvHeadCount * headDim * 2;
  const prefillTokens = Math.max(groupTokens, Math.floor(PREFILL_BYTES / tokenBytes / groupTokens) * groupTokens);
  // A decoder fills one group in every layer before the next one begins.
  const stepTokens = storage === 'decode' ? groupTokens : Math.min(prefillTokens, tokenCount);
  const rows = randomHalves((stepTokens * tokenBytes) / 2, 1);
  const offset = arena.allocate(rows.byteLength);
  arena.bytes.set(new Uint8Array(rows.buffer), offset);
  const appendAt = async (layer: number, position: number): Promise<void> => {
    const count = Math.min(stepTokens, tokenCount - position);
    await store.append(id, layer, position, count, { offset, headMajor: true, elementType: 'f16' });
  };
  const positions = Array.from({ length: Math.ceil(tokenCount / stepTokens) }, (_, i) => i * stepTokens);
  const layers = Array.from({ length: layerCount }, (_, layer) => layer);
  if (storage !== 'decode')
    for (const layer of layers) for (const position of positions) await appendAt(layer, position);
  else for (const position of positions) for (const layer of layers) await appendAt(layer, position);
  arena.free(offset);
  return layers.map((layer) => framesOf(rooms, id, layer));
}

function framesOf({ store, ftl }: Rooms, id: bigint, layer: number): Frame[][] {
  const view = store.view(id, layer);
  const { groupTokens, kvHeadCount } = view.shape;
  const offsetOf = (group: number, head: number, part: 0 | 1): number =>
    cellOffset(ftl.geometry, ftl.kv.pin(view.page(group, head, part)));
  return Array.from({ length: kvHeadCount }, (_, head) =>
    Array.from({ length: Math.floor(view.flashTokenCount / groupTokens) }, (__, group) => ({
      kOffset: offsetOf(group, head, 0),
      vOffset: offsetOf(group, head, 1),
      arena: frameArenas.media,
      tokenCount: groupTokens,
    })),
  );
}

/** The same pages dealt out anew. */
function shuffledFrames(frames: LayerFrames): LayerFrames {
  const offsets = frames.flat(2).flatMap(({ kOffset, vOffset }) => [kOffset, vOffset]);
  const random = createSeededRandom(1);
  for (let i = offsets.length - 1; i > 0; i--) {
    const j = random.nextUint32() % (i + 1);
    [offsets[i], offsets[j]] = [offsets[j]!, offsets[i]!];
  }
  let next = 0;
  return frames.map((heads) =>
    heads.map((groups) => groups.map((frame) => ({ ...frame, kOffset: offsets[next++]!, vOffset: offsets[next++]! }))),
  );
}
