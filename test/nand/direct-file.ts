/** Direct I/O as tests want it: requests end late and in any order, and may be refused. */
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DirectFile, DirectRange } from '../../daemon/base/direct-file.ts';
import type { Random } from '../attention/random.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';

/** Why there is no direct I/O in temporary folders here, or false. */
export const skipDirect: string | false = (() => {
  const unavailable = nativeUnavailable();
  if (unavailable !== undefined) return `SKIPPED: no native addon: ${unavailable}`;
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-direct-'));
  try {
    closeSync(openSync(join(folder, 'file'), constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT));
    return false;
  } catch {
    return `SKIPPED: the file system of ${tmpdir()} has no direct I/O`;
  } finally {
    rmSync(folder, { recursive: true });
  }
})();

/** Requests run at once, but who asked hears of them some turns later, in an order that chance makes. */
export class LateFile implements DirectFile {
  readonly memory: Uint8Array;
  /** What a request is refused with. */
  refuse: (kind: 'read' | 'write', range: DirectRange) => Error | undefined = () => undefined;
  readonly #inner: DirectFile;
  readonly #random: Random;
  readonly #ended: (() => void)[] = [];

  constructor(inner: DirectFile, random: Random) {
    this.#inner = inner;
    this.memory = inner.memory;
    this.#random = random;
  }

  transfer(kind: 'read' | 'write', range: DirectRange, done: (error: Error | undefined) => void): void {
    const refused = this.refuse(kind, range);
    const ended = (error: Error | undefined): void => {
      this.#ended.push(() => done(error));
      this.#later(this.#random.below(4));
    };
    if (refused) ended(refused);
    else this.#inner.transfer(kind, range, ended);
  }

  #later(turns: number): void {
    setImmediate(() => (turns > 0 ? this.#later(turns - 1) : this.#tell()));
  }

  #tell(): void {
    if (this.#ended.length > 0) this.#ended.splice(this.#random.below(this.#ended.length), 1)[0]!();
  }

  drain(): void {
    if (this.#ended.length === 0) this.#inner.drain();
    this.#tell();
  }

  close(): void {
    while (this.#ended.length > 0) this.#tell();
    this.#inner.close();
    while (this.#ended.length > 0) this.#tell();
  }
}
