/** Stand-ins for the rooms below: pages in a media file, sequences in memory. They check how the engine uses them. */
import assert from 'node:assert/strict';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { type Arena, createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { DriveError } from '../../daemon/base/errors.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import type { KvPages, Lpn, PagePins, Ppn } from '../../daemon/ftl/contract.ts';
import type { KernelName, Kernels } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import type { KvStore, LayerView, SequenceShape } from '../../daemon/kv/contract.ts';
import { type Attention, type AttentionSettings, createAttention } from '../../daemon/attention/attention.ts';
import { createSlab, DirectIo } from '../../daemon/kernels/native/direct-io.ts';
import { type CellAccess, kernelMedia } from '../../daemon/nand/cell-reader.ts';
import { DIRECT_BUFFER_BYTES, DirectCells } from '../../daemon/nand/direct-cells.ts';
import type { DirectMedia } from '../../daemon/nand/media.ts';
import { oobOffset } from '../../daemon/nand/geometry.ts';
import { flatGeometry, kvEntry } from './media-layout.ts';
import { createRandom, type Random } from './random.ts';
import { randomRows, type StoredRows } from './stored-rows.ts';

const HEADER_BYTES = 65_536;
const CACHE_BYTES = 64 * 2 ** 20;

export interface DoubleSequence {
  readonly id: bigint;
  readonly shape: SequenceShape;
  /** Per layer. */
  readonly k: readonly StoredRows[];
  readonly v: readonly StoredRows[];
  readonly lengths: readonly number[];
}

export interface DoubleDriveOptions {
  readonly kernels: KernelName;
  readonly pageSizeBytes: number;
  readonly pageCount: number;
  readonly seed: number;
  readonly arenaBytes?: number;
  readonly isDirect?: boolean;
}

export class DoubleDrive {
  readonly random: Random;
  readonly arena: Arena;
  readonly kernels: Kernels;
  readonly media: CellAccess;
  readonly direct: DirectMedia | undefined;
  readonly pages: KvPages;
  readonly pins = new Map<number, number>();
  readonly verified = new Set<number>();
  readonly eraseCounts = new Map<number, number>();
  /** Pages whose die does not answer. */
  readonly silent = new Set<number>();
  readsCounted = 0;
  unrecoveredCount = 0;
  viewsHeld = 0;
  readonly #options: DoubleDriveOptions;
  readonly #folder: string;
  readonly #directCells: DirectCells | undefined;
  readonly #directDescriptor: number | undefined;
  readonly #cells: number;
  readonly #oob: number;
  readonly #sequences = new Map<bigint, DoubleSequence & { lpns: number[][][][]; tails: number[][][] }>();
  readonly #placed: number[] = [];
  readonly #unused: number[];

  constructor(options: DoubleDriveOptions) {
    this.#options = options;
    this.pages = this.#makePages();
    this.random = createRandom(options.seed);
    this.#folder = mkdtempSync(join(tmpdir(), 'attention-'));
    this.#cells = openSync(join(this.#folder, 'cells.bin'), 'w+');
    this.#oob = openSync(join(this.#folder, 'oob.bin'), 'w+');
    const sizeBytes = HEADER_BYTES + options.pageCount * options.pageSizeBytes;
    writeSync(this.#cells, new Uint8Array(1), 0, 1, sizeBytes - 1);
    this.media = {
      cells: { fileDescriptor: this.#cells, sizeBytes },
      oobFileDescriptor: this.#oob,
      geometry: flatGeometry(options.pageSizeBytes, options.pageCount),
    };
    this.arena = createArena(options.arenaBytes ?? 32 * 2 ** 20);
    if (options.isDirect) {
      const slab = createSlab(DIRECT_BUFFER_BYTES + CACHE_BYTES);
      this.#directDescriptor = openSync(join(this.#folder, 'cells.bin'), constants.O_RDWR | constants.O_DIRECT);
      const cells = new DirectCells(new DirectIo(this.#directDescriptor, slab), options.pageSizeBytes);
      this.#directCells = cells;
      this.media = { ...this.media, slab: slab.id };
      this.direct = {
        slab: slab.id,
        cacheOffset: DIRECT_BUFFER_BYTES,
        cacheSizeBytes: CACHE_BYTES,
        load: (page, count, offset, done) =>
          cells.load(page, count, offset, (error) => done(error && new DriveError('unrecoveredRead', error.message))),
      };
    }
    this.kernels = loadKernels(options.kernels, { memory: this.arena.memory, ...kernelMedia(this.media) });
    this.#unused = this.#shuffledPages();
  }

  /** To be taken from the end: ascending stretches of a few pages, in any order. */
  #shuffledPages(): number[] {
    const stretches: number[][] = [];
    for (let page = 0; page < this.#options.pageCount; ) {
      const length = Math.min(1 + this.random.below(6), this.#options.pageCount - page);
      stretches.push(Array.from({ length }, (_, i) => page + length - 1 - i));
      page += length;
    }
    for (let i = stretches.length - 1; i > 0; i--) {
      const j = this.random.below(i + 1);
      [stretches[i], stretches[j]] = [stretches[j]!, stretches[i]!];
    }
    return stretches.flat();
  }

  /** Whether kernels walk cells where they lie, not copies of them. */
  get isInPlace(): boolean {
    return this.kernels.canMapMedia && this.direct === undefined;
  }

  close(): void {
    this.#directCells?.close();
    if (this.#directDescriptor !== undefined) closeSync(this.#directDescriptor);
    closeSync(this.#cells);
    closeSync(this.#oob);
    rmSync(this.#folder, { recursive: true });
  }

  /** What `prepare` takes. */
  get tools(): { arena: Arena; kernels: Kernels; random: Random } {
    return { arena: this.arena, kernels: this.kernels, random: this.random };
  }

  freePrepared({ target }: { target: { queryOffset: number; outputOffset: number } }): void {
    this.arena.free(target.queryOffset);
    this.arena.free(target.outputOffset);
  }

  /** Nothing is pinned and no view is held. */
  assertReleased(): void {
    assert.deepEqual([...this.pins], [], 'no page stays pinned');
    assert.equal(this.viewsHeld, 0, 'no view stays held');
  }

  addSequence(shape: SequenceShape, lengths: readonly number[], magnitude = 1): DoubleSequence {
    const { kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV, groupTokens } = shape;
    const rows = (dim: number, type: typeof elementTypeK) =>
      lengths.map((tokenCount) =>
        randomRows(this.random, this, { tokenCount, headCount: kvHeadCount, dim, type, magnitude }),
      );
    const sequence = {
      id: BigInt(this.#sequences.size + 1),
      shape,
      k: rows(headDimK, elementTypeK),
      v: rows(headDimV, elementTypeV),
      lengths,
    };
    const lpns: number[][][][] = [];
    const tails: number[][][] = [];
    for (const [layer, length] of lengths.entries()) {
      const groupCount = Math.floor(length / groupTokens);
      const parts = [
        { rows: sequence.k[layer]!, rowBytes: rowSizeBytes(elementTypeK, headDimK) },
        { rows: sequence.v[layer]!, rowBytes: rowSizeBytes(elementTypeV, headDimV) },
      ];
      const gather = (part: (typeof parts)[number], head: number, from: number, to: number): Uint8Array => {
        const gathered = new Uint8Array((to - from) * part.rowBytes);
        for (let t = from; t < to; t++) {
          const at = (t * kvHeadCount + head) * part.rowBytes;
          gathered.set(part.rows.bytes.subarray(at, at + part.rowBytes), (t - from) * part.rowBytes);
        }
        return gathered;
      };
      lpns.push(
        Array.from({ length: kvHeadCount }, (_, head) =>
          parts.map((part) =>
            Array.from({ length: groupCount }, (__, group) =>
              this.#program(gather(part, head, group * groupTokens, (group + 1) * groupTokens)),
            ),
          ),
        ),
      );
      tails.push(
        Array.from({ length: kvHeadCount }, (_, head) =>
          parts.map((part) => {
            const bytes = gather(part, head, groupCount * groupTokens, length);
            const offset = this.arena.allocate(Math.max(1, bytes.length));
            this.arena.bytes.set(bytes, offset);
            return offset;
          }),
        ),
      );
    }
    this.#sequences.set(sequence.id, { ...sequence, lpns, tails });
    return sequence;
  }

  /** Physical page of one group. */
  pageOf(sequence: DoubleSequence, layer: number, head: number, part: 0 | 1, group: number): number {
    const lpn = this.#sequences.get(sequence.id)?.lpns[layer]?.[head]?.[part]?.[group];
    assert.ok(lpn !== undefined);
    return this.#placed[lpn]!;
  }

  /** Flips one bit of a page in the media file. */
  flipBit(page: number, bit: number): void {
    const at = HEADER_BYTES + page * this.#options.pageSizeBytes + (bit >>> 3);
    const byte = new Uint8Array(1);
    this.#readCells(byte, at);
    byte[0]! ^= 1 << (bit & 7);
    writeSync(this.#cells, byte, 0, 1, at);
  }

  readonly kv = {
    view: (id: bigint, layer: number): LayerView => this.#view(id, layer),
  } as KvStore;

  #makePages(): KvPages {
    return {
      pageSizeBytes: this.#options.pageSizeBytes,
      pin: (lpn: Lpn): Ppn => {
        const page = this.#placed[lpn]!;
        this.pins.set(page, (this.pins.get(page) ?? 0) + 1);
        return page as Ppn;
      },
      unpin: (page: Ppn): void => {
        const count = this.pins.get(page);
        assert.ok(count !== undefined, `page ${page} is pinned`);
        if (count === 1) this.pins.delete(page);
        else this.pins.set(page, count - 1);
      },
      pinAll: (logical: Uint32Array, physical: Uint32Array): PagePins => {
        logical.forEach((lpn, i) => (physical[i] = this.pages.pin(lpn as Lpn)));
        return { release: () => physical.forEach((page) => this.pages.unpin(page as Ppn)) };
      },
      areReadable: (pages: Uint32Array, from: number, to: number) =>
        pages.subarray(from, to).every((page) => this.verified.has(page) && !this.silent.has(page)),
      isVerified: (page: Ppn) => this.verified.has(page),
      markVerified: (page: Ppn) => {
        assert.ok(this.pins.has(page), `page ${page} is still pinned when it is marked`);
        this.verified.add(page);
      },
      eraseCount: (page: Ppn) => this.eraseCounts.get(page) ?? 0,
      readFails: (page: Ppn) => this.silent.has(page),
      unrecovered: (page: Ppn, owner: string, isUnreadable: boolean) => {
        this.unrecoveredCount++;
        const detail = `page ${page} ${isUnreadable ? 'cannot be read' : 'fails its checksum'}; it held ${owner}`;
        return new DriveError('unrecoveredRead', detail, { result: page });
      },
      countReads: (count: number) => {
        this.readsCounted += count;
      },
    } as KvPages;
  }

  #program(bytes: Uint8Array): number {
    const page = this.#unused.pop();
    assert.ok(page !== undefined, 'the double has a page left');
    const padded = this.arena.allocate(this.#options.pageSizeBytes);
    const view = this.arena.view(padded, this.#options.pageSizeBytes);
    view.fill(0);
    view.set(bytes);
    writeSync(this.#cells, view, 0, view.length, HEADER_BYTES + page * view.length);
    const lpn = this.#placed.push(page) - 1;
    const entry = kvEntry(lpn, this.kernels.crc32c(padded, view.length));
    writeSync(this.#oob, entry, 0, entry.length, oobOffset(this.media.geometry, page));
    this.arena.free(padded);
    return lpn;
  }

  #view(id: bigint, layer: number): LayerView {
    const sequence = this.#sequences.get(id);
    if (!sequence) throw new DriveError('unknownSequence', `${id}`);
    const length = sequence.lengths[layer];
    if (length === undefined) throw new DriveError('layerRange', `${layer}`);
    this.viewsHeld++;
    return {
      shape: sequence.shape,
      length,
      flashTokenCount: length - (length % sequence.shape.groupTokens),
      page: (group, head, part) => sequence.lpns[layer]![head]![part]![group]! as Lpn,
      copyPages: (head, first, end, target, at) => {
        const [k, v] = sequence.lpns[layer]![head]!;
        for (let group = first; group < end; group++) {
          target[at + 2 * (group - first)] = k![group]!;
          target[at + 2 * (group - first) + 1] = v![group]!;
        }
      },
      tail: (head, part) => sequence.tails[layer]![head]![part]!,
      release: () => {
        this.viewsHeld--;
      },
    };
  }

  #readCells(target: Uint8Array, at: number): void {
    const file = openSync(join(this.#folder, 'cells.bin'), 'r');
    try {
      readSync(file, target, 0, target.length, at);
    } finally {
      closeSync(file);
    }
  }
}

/** An engine over a double. A worker that dies fails the test unless `onFatal` says otherwise. */
export const openAttention = (
  drive: DoubleDrive,
  settings: Partial<AttentionSettings> & { workerCount: number },
  onFatal: (cause: Error) => void = (cause) => assert.fail(cause),
): Promise<Attention> =>
  createAttention(
    { frameCacheBytes: 0, media: drive.media, direct: drive.direct, ...settings },
    {
      arena: drive.arena,
      kv: drive.kv,
      pages: drive.pages,
      kernels: drive.kernels,
      clock: systemClock,
      logger: silentLogger,
      onFatal,
    },
  );
