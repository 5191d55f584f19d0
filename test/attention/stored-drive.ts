/** Real sequences, over pages that also lie in a media file, and an engine over both. */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Attention, type AttentionSettings, createAttention } from '../../daemon/attention/attention.ts';
import { type Arena, createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { KernelName, Kernels } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { MemoryDrive, newRemains, seededRandom } from '../kv/memory-drive.ts';
import type { KnownSequence } from './attend-case.ts';
import { createRandom, type Random } from './random.ts';
import { flatGeometry } from './media-layout.ts';
import { randomRows, type StoredRows } from './stored-rows.ts';

const HEADER_BYTES = 65_536;
const PAGE_BYTES = 4096;

export interface StoredDrive {
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly random: Random;
  readonly store: SequenceStore;
  readonly engine: Attention;
  close(): Promise<void>;
}

export async function openStoredDrive(
  kernelName: KernelName,
  settings: Partial<AttentionSettings> & { workerCount: number },
): Promise<StoredDrive> {
  const folder = mkdtempSync(join(tmpdir(), 'attention-'));
  const cells = openSync(join(folder, 'cells.bin'), 'w+');
  const oob = openSync(join(folder, 'oob.bin'), 'w+');
  const pageCount = 2048;
  const sizeBytes = HEADER_BYTES + pageCount * PAGE_BYTES;
  writeSync(cells, new Uint8Array(1), 0, 1, sizeBytes - 1);
  const geometry = flatGeometry(PAGE_BYTES, pageCount);
  const media = { cells: { fileDescriptor: cells, sizeBytes }, oobFileDescriptor: oob, geometry };
  const arena = createArena(32 * 2 ** 20);
  const kernels = loadKernels(kernelName, { memory: arena.memory, media: media.cells });
  const store = new SequenceStore({ arena, kernels, clock: systemClock });
  const options = { pageSizeBytes: PAGE_BYTES, channelCount: 4, pageCount };
  const drive = await MemoryDrive.open(newRemains(options), store, { arena, random: seededRandom(3) });
  const program = drive.program.bind(drive);
  drive.program = (reservation, tag, pageOffset, channel, placement) => {
    const lpn = program(reservation, tag, pageOffset, channel, placement);
    writeSync(cells, arena.view(pageOffset, PAGE_BYTES), 0, PAGE_BYTES, HEADER_BYTES + lpn * PAGE_BYTES);
    return lpn;
  };
  const engine = await createAttention(
    { frameCacheBytes: 2 ** 20, media, ...settings },
    {
      arena,
      kv: store,
      pages: drive,
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
    engine,
    async close() {
      await engine.close();
      store.close();
      closeSync(cells);
      closeSync(oob);
      rmSync(folder, { recursive: true });
    },
  };
}

/** A stored sequence and what was appended to it. */
export class GrownSequence implements KnownSequence {
  readonly id: bigint;
  readonly shape: SequenceShape;
  readonly k: StoredRows[];
  readonly v: StoredRows[];
  readonly lengths: number[];
  readonly #drive: StoredDrive;

  /** Rows for `capacity` tokens are made up front; `append` stores the next of them. */
  constructor(drive: StoredDrive, shape: SequenceShape, capacity: number, fork?: { id: bigint; of: GrownSequence }) {
    this.#drive = drive;
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
    const slice = (rows: StoredRows, rowBytes: number): Uint8Array =>
      rows.bytes.subarray(position * rowBytes, (position + tokenCount) * rowBytes);
    const capacityOf = (rows: StoredRows, dim: number): number => rows.values.length / dim / this.shape.kvHeadCount;
    const capacity = capacityOf(this.k[layer]!, this.shape.headDimK);
    const parts = [this.k[layer]!, this.v[layer]!].map((rows) => slice(rows, rows.bytes.length / capacity));
    const data = Buffer.concat(parts);
    const offset = this.#drive.arena.allocate(data.length);
    this.#drive.arena.bytes.set(data, offset);
    this.lengths[layer] = await this.#drive.store.append(this.id, layer, position, tokenCount, {
      offset,
      headMajor: false,
    });
    this.#drive.arena.free(offset);
  }
}
