import type { ReuseHistory } from './reuse-history.ts';

/** Kept places that are looked at for one to give up. */
const SAMPLE_COUNT = 16;
/** From one to the next: prime, so that all come round. */
const SAMPLE_STRIDE = 7919;
const NOWHERE = -1;

/** What there is to know of a place of the cache. */
export interface Places {
  /** The line that lies in it. */
  lineOf(place: number): number;
  isInUse(place: number): boolean;
}

/** The places of a cache whose lines stay until others deserve it more; those of the other places pass through. */
export class KeptSet {
  readonly #sizeMax: number;
  readonly #places: Places;
  readonly #history: ReuseHistory;
  readonly #kept: number[] = [];
  /** By place: where it stands among the kept. */
  readonly #at: Int32Array;
  #sampleAt = 0;

  constructor(
    options: { readonly placeCount: number; readonly sizeMax: number },
    modules: { readonly places: Places; readonly history: ReuseHistory },
  ) {
    this.#sizeMax = options.sizeMax;
    this.#places = modules.places;
    this.#history = modules.history;
    this.#at = new Int32Array(options.placeCount).fill(NOWHERE);
  }

  get isFull(): boolean {
    return this.#kept.length >= this.#sizeMax;
  }

  has(place: number): boolean {
    return this.#at[place] !== NOWHERE;
  }

  add(place: number): void {
    this.#at[place] = this.#kept.push(place) - 1;
  }

  remove(place: number): void {
    const at = this.#at[place]!;
    if (at === NOWHERE) return;
    const last = this.#kept.pop()!;
    if (last !== place) {
      this.#kept[at] = last;
      this.#at[last] = at;
    }
    this.#at[place] = NOWHERE;
  }

  /** One that nobody uses. */
  anyIdle(): number | undefined {
    return this.#kept.find((place) => !this.#places.isInUse(place));
  }

  /** When it is full: a place that gives way to a line which is used now and deserves more to stay; it is kept no more. */
  giveWayTo(line: number): number | undefined {
    const victim = this.#worst();
    if (victim === undefined || !this.#history.deservesMore(line, this.#places.lineOf(victim))) return undefined;
    this.remove(victim);
    return victim;
  }

  /** Of a sample of those that nobody uses. */
  #worst(): number | undefined {
    let worst: number | undefined;
    if (this.#kept.length === 0) return undefined;
    for (let i = 0; i < SAMPLE_COUNT; i++) {
      this.#sampleAt = (this.#sampleAt + SAMPLE_STRIDE) % this.#kept.length;
      const place = this.#kept[this.#sampleAt]!;
      if (this.#places.isInUse(place)) continue;
      const isWorse =
        worst === undefined || this.#history.deservesLess(this.#places.lineOf(place), this.#places.lineOf(worst));
      if (isWorse) worst = place;
    }
    return worst;
  }
}
