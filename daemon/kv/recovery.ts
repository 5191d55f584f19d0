import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { assert } from '../base/assert.ts';
import type { RecoveredEvent } from '../ftl/contract.ts';
import type { MetaReader } from '../meta/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import type { BlockTable } from './block-table.ts';
import type { RemovedSequence } from './checkpoint.ts';
import type { SequenceRequest, SequenceShape } from './contract.ts';
import type { RecoveryReport } from './counters.ts';
import { decodeSequence, decodeState, idOfText, stateKey, type SequenceRecord } from './metadata-records.ts';
import { RecoveringLayer, stagedRowOffset, type RecoveredLayer } from './recovering-layer.ts';
import { readRowsIntoSlab } from './page-rows.ts';
import type { KvRoom } from './room.ts';
import { Layer, Sequence, generationOf } from './sequence.ts';
import { rowLayoutOf } from './shape.ts';
import { decodeStaged, type OperationRecord, type TailRecord } from './staged-records.ts';
import type { TailSlab } from './tail-slab.ts';

interface RecoveringSequence {
  readonly request: SequenceRequest;
  readonly parentId: bigint;
  readonly layers: readonly RecoveringLayer[];
  readonly saved: boolean;
  /** Differs from its metadata record. */
  touched: boolean;
}

/** A sequence as recovery found it. */
export interface FoundSequence {
  readonly request: SequenceRequest;
  readonly parentId: bigint;
  readonly layers: readonly (RecoveredLayer & { readonly table: BlockTable; readonly generation: number })[];
}

type PageEvent = Extract<RecoveredEvent, { kind: 'page' }>;

/** Rebuilds a drive's sequences: metadata records, then events in operation order. README.md argues why it is right. */
export class Recovery {
  readonly removed: RemovedSequence[] = [];
  nextId = 1n;
  readonly #sequences = new Map<bigint, RecoveringSequence>();
  #checkpointOperation = 0;
  #eventCount = 0;
  #droppedPageCount = 0;
  #droppedTailCount = 0;
  #droppedOperationCount = 0;
  #lostTokenCount = 0;

  load(records: MetaReader): void {
    const state = records.get(metaNamespaces.kvState, stateKey);
    if (state !== undefined) {
      const { operation, nextId } = decodeState(state);
      this.#checkpointOperation = operation;
      this.nextId = nextId;
    }
    const saved: { record: SequenceRecord; sequence: RecoveringSequence }[] = [];
    for (const { key, value } of records.range(metaNamespaces.kvSequences)) {
      const record = decodeSequence(key, value);
      saved.push({ record, sequence: this.#add(record, record.parentId, record.generations, true) });
    }
    for (const { key, value } of records.range(metaNamespaces.kvLayers)) {
      const [id, layer, segment] = key as readonly [string, number, number];
      const target = this.#sequences.get(idOfText(id))?.layers[layer];
      assert(target !== undefined && value instanceof Uint8Array, `segment ${key.join('/')} belongs to a sequence`);
      target.table.loadSegment(segment, value);
    }
    for (const { record, sequence } of saved) {
      sequence.layers.forEach((layer, index) => layer.loaded(record.lengths[index] ?? 0));
    }
  }

  #add(request: SequenceRequest, parentId: bigint, generations: readonly number[], saved: boolean): RecoveringSequence {
    const { shape } = request;
    const layers = generations.map(
      (generation) => new RecoveringLayer(shape.kvHeadCount * 2, shape.groupTokens, generation),
    );
    const { id, owner, label, leaseSeconds } = request;
    const sequence = { request: { shape, id, owner, label, leaseSeconds }, parentId, layers, saved, touched: !saved };
    this.#sequences.set(id, sequence);
    return sequence;
  }

  apply(event: RecoveredEvent): void {
    this.#eventCount++;
    if (event.kind === 'page') {
      if (event.operation > this.#checkpointOperation) this.#applyPage(event);
      return;
    }
    const record = decodeStaged(event.payload);
    // Rows may be older than the transaction and still be nowhere else; operations up to it are in its records.
    if (record.kind === 'tail') this.#applyTail(record);
    else if (event.operation > this.#checkpointOperation) this.#applyOperation(record, event.operation);
  }

  #applyPage({ tag, lpn }: PageEvent): void {
    const sequence = this.#sequences.get(tag.sequenceId);
    const layer = sequence?.layers[tag.layer];
    const stream = tag.head * 2 + tag.part;
    if (sequence === undefined || layer?.generation !== tag.generation || stream >= layer.table.streamCount) {
      this.#droppedPageCount++;
      return;
    }
    layer.addPage(tag.group, stream, lpn);
    sequence.touched = true;
  }

  #applyTail(record: TailRecord): void {
    const sequence = this.#sequences.get(record.sequenceId);
    const layer = sequence?.layers[record.layer];
    if (sequence === undefined || layer?.generation !== record.generation) return;
    const { shape } = sequence.request;
    const [bytesK, bytesV] = rowBytesOf(shape);
    if (record.rows.byteLength !== record.tokenCount * shape.kvHeadCount * (bytesK + bytesV)) {
      this.#droppedTailCount++;
      return;
    }
    layer.addTail(record);
    sequence.touched = true;
  }

  #applyOperation(record: OperationRecord, operation: number): void {
    const generation = generationOf(operation);
    switch (record.kind) {
      case 'create': {
        this.#add(
          record.request,
          0n,
          Array.from({ length: record.request.shape.layerCount }, () => generation),
          false,
        );
        return;
      }
      case 'fork': {
        const parent = this.#sequences.get(record.parentId);
        if (parent === undefined) break;
        const { shape } = parent.request;
        const generations = parent.layers.map(() => generation);
        const child = this.#add({ ...record.request, shape }, record.parentId, generations, false);
        parent.layers.forEach((layer, index) => {
          const copy = child.layers[index];
          assert(copy !== undefined, 'parent and child have the same layers');
          layer.shareWith(copy, record.tokenCount);
        });
        return;
      }
      case 'truncate': {
        const sequence = this.#sequences.get(record.sequenceId);
        if (sequence === undefined) break;
        sequence.layers.forEach((layer, index) => {
          if (record.layer === undefined || record.layer === index) layer.truncate(record.length, generation);
        });
        sequence.touched = true;
        return;
      }
      case 'reclaim':
        if (!this.#sequences.has(record.sequenceId)) break;
        this.#remove(record.sequenceId);
        return;
      case 'clear':
        for (const id of this.#sequences.keys()) this.#remove(id);
        return;
    }
    // Only a damaged log names a sequence whose own record is missing; then the drive still opens.
    this.#droppedOperationCount++;
  }

  #remove(id: bigint): void {
    const sequence = this.#sequences.get(id);
    this.#sequences.delete(id);
    if (sequence?.saved !== true) return;
    const segmentCounts = sequence.layers.map((layer) => layer.table.savedSegmentCount);
    this.removed.push({ id, segmentCounts });
  }

  /** What was found, for who only looks: nothing follows. */
  *found(): Iterable<FoundSequence> {
    for (const { request, parentId, layers } of this.#sequences.values()) {
      yield {
        request,
        parentId,
        layers: layers.map((layer) => ({ ...layer.finish(), table: layer.table, generation: layer.generation })),
      };
    }
  }

  /** Holders of each logical page. */
  references(lpnCount: number): Uint16Array {
    const references = new Uint16Array(lpnCount);
    for (const { layers } of this.#sequences.values()) {
      for (const layer of layers) {
        layer.forEachPage((page) => {
          assert(page < lpnCount, `page ${page} is below ${lpnCount}`);
          references[page] = (references[page] ?? 0) + 1;
        });
      }
    }
    return references;
  }

  /** Makes the sequences, their tails filled. DriveError bufferFull, unrecoveredRead. */
  async settle(room: KvRoom): Promise<Sequence[]> {
    const sequences: Sequence[] = [];
    for (const recovering of this.#sequences.values()) {
      const { request } = recovering;
      const layout = rowLayoutOf(request.shape, room.pages.pageSizeBytes);
      const found = recovering.layers.map((layer) => layer.finish());
      const layers = recovering.layers.map(({ table, generation }) => new Layer(table, generation));
      const { parentId } = recovering;
      const holding = room.holdings.enter(request.owner);
      const sequence = new Sequence(request, { parentId, layout, holding, layers });
      for (const [index, recovered] of found.entries()) {
        await this.#settleLayer(room, sequence, layers[index] as Layer, recovered);
        if (recovered.lostTokenCount > 0) recovering.touched = true;
      }
      sequence.enter('live');
      sequence.saved = recovering.saved;
      if (recovering.touched) room.dirty.add(sequence);
      sequences.push(sequence);
    }
    this.#sequences.clear();
    return sequences;
  }

  async #settleLayer(room: KvRoom, sequence: Sequence, layer: Layer, recovered: RecoveredLayer): Promise<void> {
    const { layout } = sequence;
    const { cut } = recovered;
    layer.length = recovered.length;
    layer.stagedLength = recovered.length - sequence.tailCount(layer);
    if (layer.length > layer.stagedLength) {
      const slab = room.tails.allocate(layout, sequence.holding);
      layer.slab = slab;
      if (cut !== undefined) await readRowsIntoSlab(room, layout, cut.pages, cut.rowCount, slab);
      for (const staged of recovered.staged) fillRows(room, layer, slab, staged);
    }
    cut?.pages.forEach((page) => room.pages.release(page));
    const padding = layout.headCount * (layout.paddingBytes[0] + layout.paddingBytes[1]);
    room.counters.tokenCount += layer.length;
    room.countHeld(sequence, layer.table.pageCount);
    room.counters.heldPaddingBytes += layer.table.groupCount * padding;
    this.#droppedPageCount += recovered.droppedPageCount;
    this.#droppedTailCount += recovered.droppedTailCount;
    this.#lostTokenCount += recovered.lostTokenCount;
  }

  report(sequenceCount: number): RecoveryReport {
    return {
      sequenceCount,
      eventCount: this.#eventCount,
      droppedPageCount: this.#droppedPageCount,
      droppedTailCount: this.#droppedTailCount,
      droppedOperationCount: this.#droppedOperationCount,
      lostTokenCount: this.#lostTokenCount,
    };
  }
}

const rowBytesOf = (shape: SequenceShape): [number, number] => [
  rowSizeBytes(shape.elementTypeK, shape.headDimK),
  rowSizeBytes(shape.elementTypeV, shape.headDimV),
];

/** Copies the rows of a staged record that belong to the layer's incomplete group. */
function fillRows(room: KvRoom, layer: Layer, slab: TailSlab, staged: RecoveredLayer['staged'][number]): void {
  const { rowBytes, headCount, groupTokens } = slab.layout;
  const groupStart = layer.table.groupCount * groupTokens;
  const from = Math.max(staged.firstToken, groupStart);
  const count = Math.min(staged.firstToken + staged.tokenCount, layer.length) - from;
  for (const part of [0, 1] as const) {
    for (let head = 0; head < headCount; head++) {
      const at = stagedRowOffset(staged, rowBytes, head, part, from);
      room.arena.bytes.set(
        staged.rows.subarray(at, at + count * rowBytes[part]),
        slab.row(head, part, from - groupStart),
      );
    }
  }
}
