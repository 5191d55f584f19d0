import { placementOf } from '../ftl/placement-table.ts';
import { BlockTable } from './block-table.ts';
import type { Holding } from './holdings.ts';
import type { SequenceRequest, SequenceShape } from './contract.ts';
import { MutationQueue } from './mutation-queue.ts';
import { sequenceTransition, type SequenceState } from './sequence-state.ts';
import type { RowLayout } from './shape.ts';
import type { TailSlab } from './tail-slab.ts';

/** Generations stand in 32-bit fields of pages and records. */
export const generationOf = (operation: number): number => operation % 2 ** 32;

/** One layer as it stands. Changed only by synchronous code, so whoever reads it sees whole changes. */
export class Layer {
  readonly table: BlockTable;
  /** Tokens: whole groups in the table, the rest in the slab. */
  length = 0;
  generation: number;
  /** Present while length is no multiple of groupTokens. */
  slab: TailSlab | undefined;
  /** Tail tokens below it are in the staging log under the present generation. */
  stagedLength = 0;
  /** Pages of a failed append carry the present generation: nothing may be added before another begins. */
  hasStrayPages = false;

  constructor(table: BlockTable, generation: number) {
    this.table = table;
    this.generation = generation;
  }
}

/** What a sequence is made of besides its identity. */
export interface SequenceParts {
  readonly parentId: bigint;
  readonly layout: RowLayout;
  readonly holding: Holding;
  /** What recovery found; empty ones if left out. */
  readonly layers?: readonly Layer[];
}

/** One sequence: its identity, its layers, and the queue that orders its changes. */
export class Sequence {
  readonly id: bigint;
  readonly parentId: bigint;
  readonly owner: bigint;
  readonly label: string;
  readonly leaseSeconds: number;
  readonly shape: SequenceShape;
  readonly layout: RowLayout;
  readonly layers: readonly Layer[];
  /** Of its owner: what it takes is counted there. */
  readonly holding: Holding;
  readonly queue = new MutationQueue();
  /** Same number for all its pages: the FTL puts them into the same erase blocks. */
  readonly placement: number;
  state: SequenceState = 'forming';
  /** When a command last named it, in the time that leases are counted in. */
  namedAtNs = 0;
  /** Has a metadata record. */
  saved = false;

  constructor(request: SequenceRequest, { parentId, layout, holding, layers }: SequenceParts) {
    this.id = request.id;
    this.parentId = parentId;
    this.owner = request.owner;
    this.label = request.label;
    this.leaseSeconds = request.leaseSeconds;
    this.shape = request.shape;
    this.layout = layout;
    this.holding = holding;
    this.placement = placementOf(request.id);
    this.layers =
      layers ??
      Array.from({ length: request.shape.layerCount }, () => new Layer(new BlockTable(layout.streamCount), 0));
  }

  enter(state: SequenceState): void {
    this.state = sequenceTransition(this.state, state);
  }

  /** Begins a generation for every layer. */
  beginGeneration(operation: number): void {
    for (const layer of this.layers) layer.generation = generationOf(operation);
  }

  /** Tokens of a layer that are in no page. */
  tailCount(layer: Layer): number {
    return layer.length % this.shape.groupTokens;
  }

  /** Index of a stream over the whole sequence: it decides on which channel the stream's group 0 lies. */
  streamIndex(layer: number, stream: number): number {
    return layer * this.layout.streamCount + stream;
  }
}
