import type { KvPages, Ppn } from '../ftl/contract.ts';
import { frameArenas } from '../kernels/contract.ts';

/** Where jobs find the bytes of flash pages. */
export interface FrameSource {
  /** frameArenas: what the offsets below are offsets in. */
  readonly arenaCode: number;
  /**
   * Every page is in a frame of its own for good: the handle is the page, and `acquire` and `release` do nothing. What is
   * side by side in the file is side by side here.
   */
  readonly isInPlace: boolean;
  /** Frames that no job holds: as many pages can be taken. */
  readonly available: number;
  /** Takes a frame for a pinned page until `release`, for one job. Returns the frame's handle. */
  acquire(page: Ppn): number;
  /** Byte offset of the frame of a taken page. */
  offset(handle: number): number;
  /** Whether the page's bytes lie in the frame already; if not, the job that took it must load them. */
  isLoaded(handle: number): boolean;
  /** Whether the bytes were checked since they came to lie where they are. */
  isChecked(handle: number): boolean;
  /** `loaded`: the bytes are there and right. */
  release(handle: number, loaded: boolean): void;
  /** Whether `acquire` would give a frame that is loaded and checked. */
  isReady(page: Ppn): boolean;
  snapshot(): FrameSourceSnapshot;
}

/** Pages, unless said otherwise. */
export interface FrameSourceSnapshot {
  /** By the mapping of the media file, copied for kernels that can't map it, or past the page cache. */
  readonly kind: 'mapping' | 'copies' | 'direct';
  readonly frameCount: number;
  readonly frameSizeBytes: number;
  /** Frames that hold a page. */
  readonly framesResident: number;
  readonly framesInUse: number;
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
  /** Requests to the disk that the misses took. */
  readonly loads: number;
}

/** Frames of kernels that map the media file: every page is where the file has it, and a handle is the page. */
export function createMappedFrames(cellOffset: (page: Ppn) => number, pages: Pick<KvPages, 'isVerified'>): FrameSource {
  return {
    arenaCode: frameArenas.media,
    isInPlace: true,
    available: Number.POSITIVE_INFINITY,
    acquire: (page) => page,
    offset: (handle) => cellOffset(handle as Ppn),
    isLoaded: () => true,
    isChecked: (handle) => pages.isVerified(handle as Ppn),
    release: () => undefined,
    isReady: (page) => pages.isVerified(page),
    snapshot: () => ({
      kind: 'mapping',
      frameCount: 0,
      frameSizeBytes: 0,
      framesResident: 0,
      framesInUse: 0,
      hits: 0,
      misses: 0,
      evictions: 0,
      loads: 0,
    }),
  };
}
