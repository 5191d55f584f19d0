import { assert } from '../base/assert.ts';
import type { DirectFile } from '../base/direct-file.ts';

/** Written together, at most. */
const REQUEST_BYTES = 512 * 1024;

/** One page on its way to the disk. */
interface PageWrite {
  readonly page: number;
  readonly frame: number;
  state: 'queued' | 'sent' | 'failed';
  error: Error | undefined;
}

/** The disk has not taken a page; it is still here, and may be taken later. `cause`: what it said. */
export class UnwrittenError extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
  }
}

/**
 * Pages that were programmed and are not on the disk yet, past the page cache. A program copies its page to a ring of
 * frames and returns; pages that lie side by side in the file, too, go to the disk together, at the end of the turn at the
 * latest. If the ring is full, a program waits for the disk, as one that dirties the page cache faster than the disk writes
 * does. A page that the disk refused stays in its frame, from where it is read; `settle` tries it again.
 */
export class WriteBehind {
  readonly #file: DirectFile;
  readonly #options: WriteBehindOptions;
  /** By page. */
  readonly #writes = new Map<number, PageWrite>();
  readonly #ring: (PageWrite | undefined)[];
  #queued: PageWrite[] = [];
  #next = 0;
  #isScheduled = false;
  #sentCount = 0;
  #waiters: (() => void)[] = [];

  constructor(file: DirectFile, options: WriteBehindOptions) {
    this.#file = file;
    this.#options = options;
    this.#ring = Array.from({ length: options.frameCount }, () => undefined);
  }

  /** Pages that are not on the disk. */
  get pageCount(): number {
    return this.#writes.size;
  }

  /** Bytes of a page that is not on the disk; undefined: it is. */
  find(page: number): Uint8Array | undefined {
    const write = this.#writes.get(page);
    return write && this.#bytesOf(write.frame);
  }

  /** `bytes`: a whole page, or a part of it from `start` on; then the rest is read, blocking. Throws what the disk says. */
  put(page: number, bytes: Uint8Array, start = 0): void {
    const before = this.#settled(page);
    if (before !== undefined) {
      this.#bytesOf(before.frame).set(bytes, start);
      return;
    }
    const frame = this.#takeFrame();
    const target = this.#bytesOf(frame);
    if (bytes.length < target.length) this.#readNow(page, frame);
    target.set(bytes, start);
    const write: PageWrite = { page, frame, state: 'queued', error: undefined };
    this.#ring[frame] = write;
    this.#writes.set(page, write);
    this.#queue(write);
    if (this.#queued.length * target.length >= REQUEST_BYTES) this.#send();
    else this.#schedule();
  }

  #queue(write: PageWrite): void {
    write.state = 'queued';
    write.error = undefined;
    this.#queued.push(write);
  }

  /** Resolves when every page put before it is on the disk's side. UnwrittenError: one is not, yet. */
  async settle(): Promise<void> {
    for (const write of this.#writes.values()) if (write.state === 'failed') this.#queue(write);
    this.#send();
    const awaited = [...this.#writes.values()];
    while (awaited.some((write) => write.state === 'sent' && this.#ring[write.frame] === write)) {
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    for (const { error } of awaited) if (error !== undefined) throw new UnwrittenError(error);
  }

  /** Blocks until nothing is on its way. */
  finish(): void {
    this.#send();
    while (this.#sentCount > 0) this.#file.drain();
  }

  /** The page's write if it can still be changed; waits, blocking, for one that can't. */
  #settled(page: number): PageWrite | undefined {
    for (;;) {
      const write = this.#writes.get(page);
      if (write?.state !== 'sent') return write;
      this.#file.drain();
    }
  }

  #takeFrame(): number {
    const frame = this.#next;
    let write = this.#ring[frame];
    if (write?.state === 'failed') this.#queue(write);
    if (write !== undefined) this.#send();
    while (write !== undefined) {
      if (write.error !== undefined) throw write.error;
      this.#file.drain();
      write = this.#ring[frame];
    }
    this.#next = (frame + 1) % this.#ring.length;
    return frame;
  }

  #readNow(page: number, frame: number): void {
    let ended: { readonly error: Error | undefined } | undefined;
    this.#file.transfer('read', this.#rangeOf(page, frame, 1), (error) => (ended = { error }));
    while (ended === undefined) this.#file.drain();
    if (ended.error !== undefined) throw ended.error;
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#send();
    });
  }

  /** Everything queued, in runs that are contiguous in the file and in the ring. */
  #send(): void {
    const queued = this.#queued;
    this.#queued = [];
    const runMax = Math.max(1, Math.floor(REQUEST_BYTES / this.#options.pageSizeBytes));
    for (let first = 0; first < queued.length; ) {
      let end = first + 1;
      while (end < queued.length && end - first < runMax && follows(queued[end - 1]!, queued[end]!)) end++;
      this.#sendRun(queued.slice(first, end));
      first = end;
    }
  }

  #sendRun(run: readonly PageWrite[]): void {
    const [{ page, frame }] = run as [PageWrite];
    for (const write of run) write.state = 'sent';
    this.#sentCount++;
    this.#file.transfer('write', this.#rangeOf(page, frame, run.length), (error) => {
      this.#sentCount--;
      for (const write of run) this.#ended(write, error);
      for (const resolve of this.#waiters.splice(0)) resolve();
    });
  }

  #ended(write: PageWrite, error: Error | undefined): void {
    if (error !== undefined) {
      write.state = 'failed';
      write.error = error;
      return;
    }
    assert(this.#ring[write.frame] === write, `frame ${write.frame} holds page ${write.page}`);
    this.#ring[write.frame] = undefined;
    this.#writes.delete(write.page);
  }

  #rangeOf(page: number, frame: number, pageCount: number) {
    const { pageSizeBytes, fileOffset, memoryOffset } = this.#options;
    return {
      position: fileOffset + page * pageSizeBytes,
      offset: memoryOffset + frame * pageSizeBytes,
      sizeBytes: pageCount * pageSizeBytes,
    };
  }

  #bytesOf(frame: number): Uint8Array {
    const { pageSizeBytes, memoryOffset } = this.#options;
    const start = memoryOffset + frame * pageSizeBytes;
    return this.#file.memory.subarray(start, start + pageSizeBytes);
  }
}

export interface WriteBehindOptions {
  readonly pageSizeBytes: number;
  /** Of page 0. */
  readonly fileOffset: number;
  /** Where in the file's memory the ring lies. */
  readonly memoryOffset: number;
  readonly frameCount: number;
}

const follows = (before: PageWrite, after: PageWrite): boolean =>
  after.page === before.page + 1 && after.frame === before.frame + 1;
