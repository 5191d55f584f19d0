import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { HostAccount } from '../hosts/host-account.ts';
import type { Limits, ResultSlots } from '../commands/contract.ts';

interface Slot {
  state: 'claimed' | 'filled';
  readonly bytes: Uint8Array;
}

/** Result slots of one association. Memory is taken when a slot is claimed and given back when it is freed. */
export class AssociationSlots implements ResultSlots {
  readonly #limits: Limits;
  readonly #account: HostAccount;
  readonly #slots = new Map<number, Slot>();
  #totalBytes = 0;
  #isEnded = false;

  constructor(options: { limits: Limits }, modules: { account: HostAccount }) {
    this.#limits = options.limits;
    this.#account = modules.account;
  }

  get usedCount(): number {
    return this.#slots.size;
  }

  get usedBytes(): number {
    return this.#totalBytes;
  }

  claim(slot: number, sizeBytes: number): void {
    this.#checkNumber(slot);
    if (this.#slots.has(slot)) throw new DriveError('slotInUse', `slot ${slot}: read or free it first`);
    const { resultSlotBytesTotalMax } = this.#limits;
    if (this.#totalBytes + sizeBytes > resultSlotBytesTotalMax) {
      const used = `${this.#totalBytes} of ${resultSlotBytesTotalMax} bytes in use`;
      throw new DriveError('slotLimit', `slot ${slot} of ${sizeBytes} bytes: ${used}`);
    }
    this.#account.take('resultSlotBytes', sizeBytes);
    this.#totalBytes += sizeBytes;
    this.#slots.set(slot, { state: 'claimed', bytes: new Uint8Array(sizeBytes) });
  }

  write(slot: number, offset: number, source: Uint8Array): void {
    const { bytes } = this.#claimed(slot);
    assert(
      offset + source.length <= bytes.length,
      `write ${offset}+${source.length} of ${bytes.length} in slot ${slot}`,
    );
    bytes.set(source, offset);
  }

  commit(slot: number): void {
    const claimed = this.#claimed(slot);
    claimed.state = 'filled';
    if (this.#isEnded) this.#remove(slot, claimed);
  }

  abandon(slot: number): void {
    this.#remove(slot, this.#claimed(slot));
  }

  read(slot: number): Uint8Array {
    return this.#filled(slot).bytes;
  }

  free(slot: number): void {
    this.#remove(slot, this.#filled(slot));
  }

  /** The association is over. What running commands have claimed is given back when they end. */
  end(): void {
    this.#isEnded = true;
    for (const [number, slot] of [...this.#slots]) if (slot.state === 'filled') this.#remove(number, slot);
  }

  #remove(number: number, slot: Slot): void {
    this.#account.give('resultSlotBytes', slot.bytes.length);
    this.#slots.delete(number);
    this.#totalBytes -= slot.bytes.length;
  }

  #claimed(number: number): Slot {
    const slot = this.#slots.get(number);
    assert(slot?.state === 'claimed', `slot ${number} is claimed`);
    return slot;
  }

  #filled(number: number): Slot {
    this.#checkNumber(number);
    const slot = this.#slots.get(number);
    if (slot?.state !== 'filled') throw new DriveError('slotEmpty', `slot ${number}`);
    return slot;
  }

  #checkNumber(slot: number): void {
    const { resultSlotCountMax } = this.#limits;
    if (slot >= resultSlotCountMax)
      throw new DriveError('slotLimit', `slot ${slot}, allowed: 0 to ${resultSlotCountMax - 1}`);
  }
}
