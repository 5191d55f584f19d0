import type { Arena } from '../base/arena.ts';
import type { Kernels } from '../kernels/contract.ts';
import type { Geometry } from '../nand/geometry.ts';
import type { Media } from '../nand/media.ts';

/** Consecutive pages, each of them one sum or one for every 4 KiB slot. */
export interface SumRequest {
  readonly firstPpn: number;
  readonly pageCount: number;
  readonly bySlot: boolean;
}

export interface SumResult {
  /** CRC32C in order; of pages that could not be read, anything. */
  readonly sums: Uint32Array;
  /** Pages that could not be read, and why. */
  readonly unreadable: readonly { readonly ppn: number; readonly why: string }[];
}

/** Reads pages and sums them. */
export interface PageSummer {
  /** Requests that it can work on at once. */
  readonly concurrency: number;
  sum(request: SumRequest): Promise<SumResult>;
  close(): Promise<void>;
}

/** Most pages that one request may have. */
export const SUM_PAGES_MAX = 64;

/** On the calling thread, through whatever the media is. */
export class InlineSummer implements PageSummer {
  readonly concurrency = 1;
  readonly #media: Media;
  readonly #geometry: Geometry;
  readonly #kernels: Kernels;
  readonly #arena: Arena;
  readonly #frames: number;

  constructor(modules: { media: Media; geometry: Geometry; arena: Arena; kernels: Kernels }) {
    this.#media = modules.media;
    this.#geometry = modules.geometry;
    this.#kernels = modules.kernels;
    this.#arena = modules.arena;
    this.#frames = modules.arena.allocate(modules.geometry.pageSizeBytes);
  }

  async sum({ firstPpn, pageCount, bySlot }: SumRequest): Promise<SumResult> {
    const { pageSizeBytes, slotsPerPage } = this.#geometry;
    const perPage = bySlot ? slotsPerPage : 1;
    const unitBytes = pageSizeBytes / perPage;
    const sums = new Uint32Array(pageCount * perPage);
    const unreadable: { ppn: number; why: string }[] = [];
    const frame = this.#arena.view(this.#frames, pageSizeBytes);
    for (let page = 0; page < pageCount; page++) {
      try {
        await this.#media.readCells((firstPpn + page) * pageSizeBytes, frame);
        for (let i = 0; i < perPage; i++) {
          sums[page * perPage + i] = this.#kernels.crc32c(this.#frames + i * unitBytes, unitBytes);
        }
      } catch (error) {
        unreadable.push({ ppn: firstPpn + page, why: (error as Error).message });
      }
    }
    return { sums, unreadable };
  }

  close(): Promise<void> {
    this.#arena.free(this.#frames);
    return Promise.resolve();
  }
}
