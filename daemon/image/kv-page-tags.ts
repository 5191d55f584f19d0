import { oobEntry } from '../../spec/media-format/oob.ts';

const at = oobEntry.offsetOf;

/** What the out-of-band entry of a KV page says of whose it is. */
export interface PageTag {
  readonly sequenceId: bigint;
  readonly generation: number;
  readonly layer: number;
  readonly head: number;
  readonly part: number;
  readonly group: number;
}

/** Tags by logical page: 20 bytes for each, so that a check of any drive takes bounded memory. */
export class KvPageTags {
  /** Index in `#ids` plus one; 0: no right entry was seen. */
  readonly #sequence: Uint32Array;
  readonly #generation: Uint32Array;
  readonly #layerHead: Uint32Array;
  readonly #part: Uint8Array;
  readonly #group: Uint32Array;
  readonly #ids: bigint[] = [];
  readonly #indexOf = new Map<bigint, number>();

  constructor(lpnCount: number) {
    this.#sequence = new Uint32Array(lpnCount);
    this.#generation = new Uint32Array(lpnCount);
    this.#layerHead = new Uint32Array(lpnCount);
    this.#part = new Uint8Array(lpnCount);
    this.#group = new Uint32Array(lpnCount);
  }

  /** The entry of logical page `lpn` lies at `offset`. */
  note(lpn: number, view: DataView, offset: number): void {
    const id = view.getBigUint64(offset + at.sequenceId, true);
    let index = this.#indexOf.get(id);
    if (index === undefined) {
      index = this.#ids.push(id);
      this.#indexOf.set(id, index);
    }
    this.#sequence[lpn] = index;
    this.#generation[lpn] = view.getUint32(offset + at.generation, true);
    this.#layerHead[lpn] = view.getUint16(offset + at.layer, true) + view.getUint16(offset + at.head, true) * 0x1_0000;
    this.#part[lpn] = view.getUint8(offset + at.part);
    this.#group[lpn] = view.getUint32(offset + at.group, true);
  }

  /** undefined if the page's entry was not seen, or not right. */
  get(lpn: number): PageTag | undefined {
    const index = this.#sequence[lpn]!;
    if (index === 0) return undefined;
    return {
      sequenceId: this.#ids[index - 1]!,
      generation: this.#generation[lpn]!,
      layer: this.#layerHead[lpn]! & 0xffff,
      head: this.#layerHead[lpn]! >>> 16,
      part: this.#part[lpn]!,
      group: this.#group[lpn]!,
    };
  }
}
