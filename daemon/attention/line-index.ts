import { assert } from '../base/assert.ts';

const NOTHING = 0xffff_ffff;

/** Which segment holds a line: a hash table in typed arrays, since every page of every command is looked up. */
export class LineIndex {
  readonly #lines: Uint32Array;
  readonly #segments: Uint32Array;
  readonly #mask: number;
  #size = 0;

  /** At most `capacity` lines. */
  constructor(capacity: number) {
    const slotCount = 2 ** Math.ceil(Math.log2(Math.max(8, 2 * capacity)));
    this.#lines = new Uint32Array(slotCount).fill(NOTHING);
    this.#segments = new Uint32Array(slotCount);
    this.#mask = slotCount - 1;
  }

  get size(): number {
    return this.#size;
  }

  /** Segment of the line, or -1. */
  get(line: number): number {
    const lines = this.#lines;
    for (let at = mix(line) & this.#mask; ; at = (at + 1) & this.#mask) {
      if (lines[at] === line) return this.#segments[at]!;
      if (lines[at] === NOTHING) return -1;
    }
  }

  set(line: number, segment: number): void {
    const lines = this.#lines;
    let at = mix(line) & this.#mask;
    while (lines[at] !== NOTHING && lines[at] !== line) at = (at + 1) & this.#mask;
    if (lines[at] === NOTHING) {
      this.#size++;
      assert(this.#size <= this.#mask / 2 + 1, 'the index has room');
    }
    lines[at] = line;
    this.#segments[at] = segment;
  }

  delete(line: number): void {
    const lines = this.#lines;
    let hole = mix(line) & this.#mask;
    while (lines[hole] !== line) {
      if (lines[hole] === NOTHING) return;
      hole = (hole + 1) & this.#mask;
    }
    this.#size--;
    // What follows moves up unless it would come to lie before the place that its hash gives it.
    for (let at = (hole + 1) & this.#mask; lines[at] !== NOTHING; at = (at + 1) & this.#mask) {
      const home = mix(lines[at]!) & this.#mask;
      if (((at - home) & this.#mask) < ((at - hole) & this.#mask)) continue;
      lines[hole] = lines[at]!;
      this.#segments[hole] = this.#segments[at]!;
      hole = at;
    }
    lines[hole] = NOTHING;
  }
}

/** Spreads numbers over 32 bits (the finaliser of MurmurHash3). */
export function mix(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
