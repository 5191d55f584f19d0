/** Writes a decoded text to standard output as it comes, and keeps its tokens. */
import type { DecodedToken } from '../model/decode.ts';
import { Progress } from './output.ts';

export class TextWriter {
  readonly tokens: DecodedToken[] = [];
  readonly #progress = new Progress();
  readonly #stepCount: number;
  readonly #startMs = performance.now();
  #finished = false;

  constructor(stepCount: number) {
    this.#stepCount = stepCount;
  }

  /** Since it was made. */
  get elapsedMs(): number {
    return performance.now() - this.#startMs;
  }

  write(token: DecodedToken): void {
    this.tokens.push(token);
    // On a terminal the text itself shows how far it is.
    if (!process.stdout.isTTY) {
      const rate = (1000 * this.tokens.length) / this.elapsedMs;
      this.#progress.update(`token ${this.tokens.length} of ${this.#stepCount}, ${rate.toFixed(0)} tokens/s`);
    }
    if (token.bytes.length > 0) process.stdout.write(token.bytes);
  }

  /** The one line break at the end. Once. */
  finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#progress.clear();
    process.stdout.write('\n');
  }
}
