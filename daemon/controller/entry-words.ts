import { submissionEntry } from '../../spec/submission-entry.ts';
import type { SubmissionEntry } from '../commands/contract.ts';

const WORD_BYTES = 4;
const WORD_COUNT = submissionEntry.sizeBytes / WORD_BYTES;
const wordOf = (name: keyof typeof submissionEntry.offsetOf): number =>
  Math.floor(submissionEntry.offsetOf[name] / WORD_BYTES);
const METADATA_POINTER = wordOf('metadataPointer');
const SGL = wordOf('sgl');
const NSID = wordOf('namespaceId');
const CDW2 = wordOf('cdw2');
const CDW3 = wordOf('cdw3');
const CDW10 = wordOf('cdw10');
const CDW11 = wordOf('cdw11');
const CDW12 = wordOf('cdw12');
const CDW13 = wordOf('cdw13');
const CDW14 = wordOf('cdw14');
const CDW15 = wordOf('cdw15');

/**
 * A submission entry as 16 words, copied from where it arrived and read when somebody asks: most commands look at few of
 * them. Numbers that are kept as such in fields cost garbage from 2^31 on.
 */
export class EntryWords implements SubmissionEntry {
  readonly #words = new Uint32Array(WORD_COUNT);
  readonly bytes = new Uint8Array(this.#words.buffer);

  /** The entry begins at byte `from` of `source`. */
  loadEntry(source: DataView, from: number): void {
    const words = this.#words;
    for (let i = 0; i < WORD_COUNT; i++) words[i] = source.getUint32(from + i * WORD_BYTES, true);
  }

  get opcode(): number {
    return (this.#words[0] as number) & 0xff;
  }

  get flags(): number {
    return ((this.#words[0] as number) >>> 8) & 0xff;
  }

  get commandId(): number {
    return (this.#words[0] as number) >>> 16;
  }

  get namespaceId(): number {
    return this.#words[NSID] as number;
  }

  get cdw2(): number {
    return this.#words[CDW2] as number;
  }

  get cdw3(): number {
    return this.#words[CDW3] as number;
  }

  get cdw10(): number {
    return this.#words[CDW10] as number;
  }

  get cdw11(): number {
    return this.#words[CDW11] as number;
  }

  get cdw12(): number {
    return this.#words[CDW12] as number;
  }

  get cdw13(): number {
    return this.#words[CDW13] as number;
  }

  get cdw14(): number {
    return this.#words[CDW14] as number;
  }

  get cdw15(): number {
    return this.#words[CDW15] as number;
  }

  get hasMetadataPointer(): boolean {
    const words = this.#words;
    return ((words[METADATA_POINTER] as number) | (words[METADATA_POINTER + 1] as number)) !== 0;
  }

  /** One of the four words of the SGL descriptor. */
  sglWord(index: number): number {
    return this.#words[SGL + index] as number;
  }

  /** Whether one of `reserved` is set, which are masks in the order of `dwordNames`. */
  hasBits(reserved: Uint32Array): boolean {
    const words = this.#words;
    const stray =
      ((words[CDW2] as number) & (reserved[0] as number)) |
      ((words[CDW3] as number) & (reserved[1] as number)) |
      ((words[CDW10] as number) & (reserved[2] as number)) |
      ((words[CDW11] as number) & (reserved[3] as number)) |
      ((words[CDW12] as number) & (reserved[4] as number)) |
      ((words[CDW13] as number) & (reserved[5] as number)) |
      ((words[CDW14] as number) & (reserved[6] as number)) |
      ((words[CDW15] as number) & (reserved[7] as number));
    return stray !== 0;
  }
}
