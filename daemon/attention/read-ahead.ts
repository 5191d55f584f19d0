import { DriveError } from '../base/errors.ts';
import type { KvPages } from '../ftl/contract.ts';
import type { KvStore, LayerView } from '../kv/contract.ts';
import type { PageCache } from './page-cache.ts';
import type { TargetPlan } from './plan.ts';

/** Of one layer, at most; what of it is in the cache counts, too. */
const AHEAD_BYTES = 32 * 2 ** 20;
/** Sequences whose last layer is remembered. */
const SEQUENCES_MAX = 1024;

interface Modules {
  readonly kv: KvStore;
  readonly pages: KvPages;
  readonly cache: PageCache;
}

/**
 * Decoders go through the layers of a sequence in order, token after token. Once a sequence was seen to do so, the beginning
 * of its next layer is read as soon as the disk has nothing to do for the layer at hand: while that is worked on, its outputs
 * travel, and the client makes its next query.
 */
export class ReadAhead {
  readonly #modules: Modules;
  /** The layer that each sequence attended to last, and whether it was the one after that before it. */
  readonly #last = new Map<bigint, { readonly layer: number; readonly isInOrder: boolean }>();

  /** What is to be read, as soon as there is room; of the latest command. */
  #pages = new Uint32Array();

  constructor(modules: Modules) {
    this.#modules = modules;
  }

  /** All pages of a command are there or on their way. */
  after(plans: readonly TargetPlan[]): void {
    for (const plan of plans) {
      const { sequenceId, layer } = plan.target;
      const { layerCount } = plan.view.shape;
      const before = this.#last.get(sequenceId);
      const isInOrder = before !== undefined && layer === (before.layer + 1) % layerCount;
      // Forgets whoever was not heard of longest.
      this.#last.delete(sequenceId);
      if (this.#last.size >= SEQUENCES_MAX) this.#last.delete(this.#last.keys().next().value!);
      this.#last.set(sequenceId, { layer, isInOrder });
      if (isInOrder && layerCount > 1) this.#read(plan, (layer + 1) % layerCount);
    }
  }

  /** Room may have been made. */
  goOn(): void {
    if (this.#pages.length > 0) this.#pages = this.#pages.subarray(this.#modules.cache.readAhead(this.#pages));
  }

  /** What the next layer has of the groups of this plan, from the first on. */
  #read(plan: TargetPlan, layer: number): void {
    let view: LayerView;
    try {
      view = this.#modules.kv.view(plan.target.sequenceId, layer);
    } catch (error) {
      // It was reclaimed meanwhile.
      if (error instanceof DriveError) return;
      throw error;
    }
    try {
      const logical = this.#logicalPages(plan, view);
      const physical = new Uint32Array(logical.length);
      // Where they lie now. If a block is erased before its page has come, the page is of an earlier life, and never used.
      this.#modules.pages.pinAll(logical, physical).release();
      this.#pages = physical.sort();
      this.goOn();
    } finally {
      view.release();
    }
  }

  #logicalPages(plan: TargetPlan, view: LayerView): Uint32Array {
    const { firstKvHead, kvHeadCount, layout } = plan;
    const groupsMax = Math.floor(AHEAD_BYTES / (2 * kvHeadCount * this.#modules.pages.pageSizeBytes));
    const groupCount = Math.floor(view.flashTokenCount / layout.groupTokens);
    const first = Math.min(plan.groupRuns[0]?.first ?? 0, groupCount);
    const end = Math.min(groupCount, first + groupsMax, first + plan.groupCount);
    const logical = new Uint32Array(2 * kvHeadCount * (end - first));
    let at = 0;
    for (let head = firstKvHead; head < firstKvHead + kvHeadCount; head++) {
      view.copyPages(head, first, end, logical, at);
      at += 2 * (end - first);
    }
    return logical;
  }
}
