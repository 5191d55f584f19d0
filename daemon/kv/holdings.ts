/** What the sequences of one owner take of the drive. */
export interface Holding {
  sequenceCount: number;
  /** A page that two sequences share counts twice. */
  pageCount: number;
  /** Slabs, those included that only views still hold. */
  tailBytes: number;
}

const nothing: Readonly<Holding> = Object.freeze({ sequenceCount: 0, pageCount: 0, tailBytes: 0 });

/** What every owner has, as long as it has sequences. */
export class Holdings {
  readonly #byOwner = new Map<bigint, Holding>();

  of(owner: bigint): Readonly<Holding> {
    return this.#byOwner.get(owner) ?? nothing;
  }

  /** A sequence of this owner begins to be. */
  enter(owner: bigint): Holding {
    let holding = this.#byOwner.get(owner);
    if (holding === undefined) {
      holding = { ...nothing };
      this.#byOwner.set(owner, holding);
    }
    holding.sequenceCount++;
    return holding;
  }

  /** One is no more; what it held has been or will be taken off its holding. */
  leave(owner: bigint, holding: Holding): void {
    holding.sequenceCount--;
    if (holding.sequenceCount === 0 && this.#byOwner.get(owner) === holding) this.#byOwner.delete(owner);
  }
}
