/** Says that no page is in a slot. */
const EMPTY = -1;

/** The pages between the link and the cells: as many slots, taken in turn, each free again when its page is programmed. */
export class WriteBuffer {
  readonly pageCount: number;
  readonly #slotPpn: Float64Array;
  readonly #slotFreeNs: Float64Array;
  readonly #slotOfPpn = new Map<number, number>();
  #next = 0;

  constructor(pageCount: number) {
    this.pageCount = pageCount;
    this.#slotPpn = new Float64Array(pageCount).fill(EMPTY);
    this.#slotFreeNs = new Float64Array(pageCount);
  }

  /** When the next page finds its slot free. */
  admit(readyNs: number): number {
    return this.pageCount === 0 ? readyNs : Math.max(readyNs, this.#slotFreeNs[this.#next]!);
  }

  /** Puts a page into the next slot until it is programmed. */
  keep(ppn: number, programmedNs: number): void {
    const slot = this.#next;
    this.#next = (slot + 1) % this.pageCount;
    const before = this.#slotPpn[slot]!;
    if (this.#slotOfPpn.get(before) === slot) this.#slotOfPpn.delete(before);
    this.#slotPpn[slot] = ppn;
    this.#slotFreeNs[slot] = programmedNs;
    this.#slotOfPpn.set(ppn, slot);
  }

  /** Whether a page need not be read from its die: it is not programmed yet. */
  holds(ppn: number, atNs: number): boolean {
    const slot = this.#slotOfPpn.get(ppn);
    return slot !== undefined && this.#slotFreeNs[slot]! > atNs;
  }
}
