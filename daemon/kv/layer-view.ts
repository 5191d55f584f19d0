import { assert } from '../base/assert.ts';
import type { Lpn } from '../ftl/contract.ts';
import type { LayerView, SequenceShape } from './contract.ts';
import type { Layer, Sequence } from './sequence.ts';
import type { Part } from './shape.ts';
import type { TailSlab } from './tail-slab.ts';

/** One layer as it stands when this is made: see LayerView. */
export class TailHoldingView implements LayerView {
  readonly shape: SequenceShape;
  readonly length: number;
  readonly flashTokenCount: number;
  readonly #layer: Layer;
  readonly #slab: TailSlab | undefined;
  #isReleased = false;

  constructor(sequence: Sequence, layer: Layer) {
    this.shape = sequence.shape;
    this.length = layer.length;
    this.flashTokenCount = layer.length - sequence.tailCount(layer);
    this.#layer = layer;
    this.#slab = layer.slab;
    this.#slab?.hold();
  }

  page(group: number, head: number, part: Part): Lpn {
    assert(group * this.shape.groupTokens < this.flashTokenCount, `group ${group} is in the view`);
    return this.#layer.table.page(group, head * 2 + part);
  }

  copyPages(head: number, first: number, end: number, target: Uint32Array, at: number): void {
    assert(end * this.shape.groupTokens <= this.flashTokenCount, `groups ${first} to ${end} are in the view`);
    this.#layer.table.copyPairs(head * 2, first, end, target, at);
  }

  tail(head: number, part: Part): number {
    assert(this.#slab !== undefined && !this.#isReleased, 'the view has tail rows');
    assert(head >= 0 && head < this.shape.kvHeadCount, `head ${head} of ${this.shape.kvHeadCount}`);
    return this.#slab.row(head, part, 0);
  }

  release(): void {
    assert(!this.#isReleased, 'a view is released once');
    this.#isReleased = true;
    this.#slab?.letGo();
  }
}
