import { DriveCommandError, DriveLimitError } from './errors.ts';
import type { Region } from './region.ts';

/** A piece of a region. */
export interface RegionSlice {
  readonly region: Region;
  readonly offset: number;
  readonly sizeBytes: number;
}

interface FreeRange {
  offset: number;
  sizeBytes: number;
}

interface Space {
  readonly region: Region;
  /** Ascending, never adjacent. */
  readonly free: FreeRange[];
}

const ALIGNMENT_BYTES = 4096;
const REGION_BYTES_MIN = 16 * 1024 * 1024;

/**
 * Shares a few large regions out to commands. Slices of commands under way (`temporary`) come back soon, so that a
 * request that finds no room waits for them; a prepared request that finds none is refused.
 */
export class RegionSpace {
  #sizeBytesMax: number;
  readonly #create: (sizeBytes: number) => Promise<Region>;
  readonly #spaces: Space[] = [];
  readonly #waiting: (() => void)[] = [];
  #sizeBytes = 0;
  #temporaryCount = 0;
  #growing: Promise<void> | undefined;

  constructor(options: { sizeBytesMax: number }, modules: { create: (sizeBytes: number) => Promise<Region> }) {
    this.#sizeBytesMax = options.sizeBytesMax;
    this.#create = modules.create;
  }

  /** For one command: waits for room if others will free it. */
  async allocateTemporary(sizeBytes: number): Promise<RegionSlice> {
    for (;;) {
      const slice = await this.#allocate(sizeBytes);
      if (slice !== undefined) {
        this.#temporaryCount++;
        return slice;
      }
      if (this.#temporaryCount === 0) this.#refuse(sizeBytes);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** For a prepared request: DriveLimitError if there is no room. */
  async allocate(sizeBytes: number): Promise<RegionSlice> {
    return (await this.#allocate(sizeBytes)) ?? this.#refuse(sizeBytes);
  }

  releaseTemporary(slice: RegionSlice): void {
    this.#temporaryCount--;
    this.release(slice);
  }

  release(slice: RegionSlice): void {
    const space = this.#spaces.find((candidate) => candidate.region === slice.region);
    if (space !== undefined) putBack(space.free, slice.offset, slice.sizeBytes);
    for (const resume of this.#waiting.splice(0)) resume();
  }

  /** The region that these bytes are of, if they are of any, and where in it. */
  find(bytes: Uint8Array): { region: Region; offset: number } | undefined {
    for (const { region } of this.#spaces) {
      const offset = region.offsetOf(bytes);
      if (offset !== undefined) return { region, offset };
    }
    return undefined;
  }

  #refuse(sizeBytes: number): never {
    throw new DriveLimitError(`no ${sizeBytes} bytes left in ${this.#sizeBytesMax} bytes of region space`);
  }

  async #allocate(wantedBytes: number): Promise<RegionSlice | undefined> {
    const sizeBytes = Math.ceil(wantedBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
    for (;;) {
      for (const { region, free } of this.#spaces) {
        const offset = takeFirst(free, sizeBytes);
        if (offset !== undefined) return { region, offset, sizeBytes };
      }
      if (this.#growing !== undefined) await this.#growing;
      else if (this.#sizeBytes + sizeBytes > this.#sizeBytesMax) return undefined;
      else await this.#grow(sizeBytes);
    }
  }

  async #grow(sizeBytes: number): Promise<void> {
    const regionBytes = Math.max(sizeBytes, Math.min(REGION_BYTES_MIN, this.#sizeBytesMax - this.#sizeBytes));
    this.#sizeBytes += regionBytes;
    const growing = this.#create(regionBytes).then((region) => {
      this.#spaces.push({ region, free: [{ offset: 0, sizeBytes: regionBytes }] });
    });
    // Others that wait for it look again afterwards; only the one that asked hears how it failed.
    this.#growing = growing.catch(() => undefined);
    try {
      await growing;
    } catch (error) {
      this.#sizeBytes -= regionBytes;
      const isLimit = error instanceof DriveCommandError && error.code === 'regionLimit';
      if (!isLimit || this.#spaces.length === 0) throw error;
      // The drive gives no more: make do with what there is.
      this.#sizeBytesMax = this.#sizeBytes;
    } finally {
      this.#growing = undefined;
    }
  }
}

/** First fit. */
function takeFirst(free: FreeRange[], sizeBytes: number): number | undefined {
  const index = free.findIndex((range) => range.sizeBytes >= sizeBytes);
  const range = free[index];
  if (range === undefined) return undefined;
  const { offset } = range;
  range.offset += sizeBytes;
  range.sizeBytes -= sizeBytes;
  if (range.sizeBytes === 0) free.splice(index, 1);
  return offset;
}

function putBack(free: FreeRange[], offset: number, sizeBytes: number): void {
  let index = free.findIndex((range) => range.offset > offset);
  if (index < 0) index = free.length;
  free.splice(index, 0, { offset, sizeBytes });
  const next = free[index + 1];
  if (next !== undefined && offset + sizeBytes === next.offset) {
    (free[index] as FreeRange).sizeBytes += next.sizeBytes;
    free.splice(index + 1, 1);
  }
  const previous = free[index - 1];
  if (previous !== undefined && previous.offset + previous.sizeBytes === offset) {
    previous.sizeBytes += (free[index] as FreeRange).sizeBytes;
    free.splice(index, 1);
  }
}
