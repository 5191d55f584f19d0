/**
 * A file that is read and written past the system's page cache, straight to and from memory whose addresses the disk can
 * take. Requests run at once and end in any order; positions, offsets and sizes are multiples of 4096.
 */
export interface DirectFile {
  /** What requests go to and come from. */
  readonly memory: Uint8Array;
  /** `offset`: in `memory`. `done` is called once, later: without an error if all bytes were moved. */
  transfer(kind: 'read' | 'write', range: DirectRange, done: (error: Error | undefined) => void): void;
  /** Blocks until at least one request has ended, and calls its `done`. Returns at once if there is none. */
  drain(): void;
  /** Blocks until all requests have ended; their `done` are called. None is taken afterwards. */
  close(): void;
}

export interface DirectRange {
  /** In the file. */
  readonly position: number;
  readonly offset: number;
  readonly sizeBytes: number;
}

/** What the page cache would have hidden: the disk is addressed in blocks of so many bytes at most. */
export const DIRECT_BLOCK_BYTES = 4096;
