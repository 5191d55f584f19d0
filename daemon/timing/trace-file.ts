import { closeSync, openSync, writeSync } from 'node:fs';
import { DriveError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { type TraceDescription, TraceWriter } from './trace-writer.ts';

/** A recording on its way into a file. */
export class TraceFile {
  readonly path: string;
  readonly writer: TraceWriter;
  readonly #logger: Logger;
  readonly #write: typeof writeSync;
  #descriptor: number | undefined;

  /** A new file. DriveError invalidField if it is there already, or can't be made. */
  constructor(path: string, description: TraceDescription, modules: { logger: Logger; write?: typeof writeSync }) {
    this.path = path;
    this.#logger = modules.logger;
    this.#write = modules.write ?? writeSync;
    try {
      this.#descriptor = openSync(path, 'wx', 0o644);
    } catch (error) {
      const isThere = (error as NodeJS.ErrnoException).code === 'EEXIST';
      const why = isThere ? 'there is a file already; give another name' : (error as Error).message;
      throw new DriveError('invalidField', `recording ${path}: ${why}`, { cause: error });
    }
    this.writer = new TraceWriter(description, (bytes) => this.#append(bytes));
  }

  /** Ends the recording in order. */
  close(): void {
    this.writer.close();
    this.#stop();
  }

  /** Into the page cache, as programs go. A disk that refuses ends the recording; the drive goes on. */
  #append(bytes: Uint8Array): void {
    if (this.#descriptor === undefined) return;
    try {
      for (let at = 0; at < bytes.length; ) at += this.#write(this.#descriptor, bytes, at, bytes.length - at);
    } catch (error) {
      this.#logger.error({ err: error, path: this.path }, 'recording stopped: the disk refused');
      this.#stop();
    }
  }

  #stop(): void {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }
}
