/** Real sequences on a real flash in a temporary folder, and an engine over both. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Attention, type AttentionSettings, createAttention } from '../../daemon/attention/attention.ts';
import { type Arena, createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { Ftl, openFolder } from '../../daemon/ftl/ftl.ts';
import { cellAccess, kernelMedia } from '../../daemon/nand/cell-reader.ts';
import { systemFileSystem } from '../../daemon/base/file-system.ts';
import type { KernelSet } from './kernel-sets.ts';
import type { Kernels } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { cellOffset } from '../../daemon/nand/geometry.ts';
import type { KnownSequence } from './attend-case.ts';
import { createRandom, type Random } from './random.ts';
import { randomRows, type StoredRows } from './stored-rows.ts';

const MIB = 2 ** 20;

export interface StoredDrive {
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly random: Random;
  readonly store: SequenceStore;
  readonly ftl: Ftl;
  readonly engine: Attention;
  /** Flips a bit of a physical page in the media file. */
  flipBit(page: number, bit: number): void;
  close(): Promise<void>;
}

export async function openStoredDrive(
  set: Pick<KernelSet, 'name' | 'isDirect'>,
  settings: Partial<AttentionSettings> & { workerCount: number },
): Promise<StoredDrive> {
  const folder = mkdtempSync(join(tmpdir(), 'attention-'));
  const request = {
    blockCapacityBytes: 2 * MIB,
    kvCapacityBytes: 4 * MIB,
    pageSizeBytes: 4096,
    channelCount: 2,
    diesPerChannel: 1,
    overProvisioning: 0.25,
    force: false,
  };
  await formatDrive(folder, request, createSeededRandom(1));
  const stores = openFolder(folder, systemFileSystem, set.isDirect ? { direct: { cacheBytes: 64 * MIB } } : 'mapped');
  const arena = createArena(32 * MIB);
  const files = stores.media.files!;
  const media = cellAccess(files, stores.geometry);
  const kernels = loadKernels(set.name, { memory: arena.memory, ...kernelMedia(media) });
  const store = new SequenceStore({ arena, kernels, clock: systemClock });
  const ftl = await Ftl.open(stores, {
    arena,
    kernels,
    clock: systemClock,
    random: createSeededRandom(2),
    logger: silentLogger,
    kvRecovery: store,
  });
  const engine = await createAttention(
    { frameCacheBytes: MIB, media, direct: files.direct, ...settings },
    {
      arena,
      kv: store,
      pages: ftl.kv,
      kernels,
      clock: systemClock,
      logger: silentLogger,
      onFatal: (cause) => {
        throw cause;
      },
    },
  );
  return {
    arena,
    kernels,
    random: createRandom(9),
    store,
    ftl,
    engine,
    flipBit(page, bit) {
      const file = openSync(join(folder, 'media', 'cells.bin'), 'r+');
      const at = cellOffset(ftl.geometry, page) + (bit >>> 3);
      const byte = new Uint8Array(1);
      readSync(file, byte, 0, 1, at);
      byte[0]! ^= 1 << (bit & 7);
      writeSync(file, byte, 0, 1, at);
      closeSync(file);
    },
    async close() {
      await engine.close();
      store.close();
      await ftl.close();
      rmSync(folder, { recursive: true });
    },
  };
}

/** A stored sequence and what was appended to it. */
export class GrownSequence implements KnownSequence {
  readonly id: bigint;
  readonly shape: SequenceShape;
  readonly k: readonly StoredRows[];
  readonly v: readonly StoredRows[];
  readonly lengths: number[];
  readonly #drive: StoredDrive;
  readonly #capacity: number;

  /** Rows for `capacity` tokens are made up front; `append` stores the next of them. A fork shares its parent's. */
  constructor(drive: StoredDrive, shape: SequenceShape, capacity: number, fork?: { id: bigint; of: GrownSequence }) {
    this.#drive = drive;
    this.#capacity = capacity;
    this.shape = shape;
    this.id = fork?.id ?? drive.store.create({ shape, id: 0n, label: 'test', leaseSeconds: 0, owner: 1n });
    const rows = (dim: number, type: SequenceShape['elementTypeK']): StoredRows[] =>
      Array.from({ length: shape.layerCount }, () =>
        randomRows(drive.random, drive, { tokenCount: capacity, headCount: shape.kvHeadCount, dim, type }),
      );
    this.k = fork?.of.k ?? rows(shape.headDimK, shape.elementTypeK);
    this.v = fork?.of.v ?? rows(shape.headDimV, shape.elementTypeV);
    this.lengths = Array.from({ length: shape.layerCount }, () => 0);
  }

  async append(layer: number, tokenCount: number): Promise<void> {
    const position = this.lengths[layer]!;
    const rowsOf = ({ bytes }: StoredRows): Uint8Array => {
      const tokenBytes = bytes.length / this.#capacity;
      return bytes.subarray(position * tokenBytes, (position + tokenCount) * tokenBytes);
    };
    const data = Buffer.concat([rowsOf(this.k[layer]!), rowsOf(this.v[layer]!)]);
    const { arena, store } = this.#drive;
    const offset = arena.allocate(data.length);
    arena.bytes.set(data, offset);
    this.lengths[layer] = await store.append(this.id, layer, position, tokenCount, { offset, headMajor: false });
    arena.free(offset);
  }
}
