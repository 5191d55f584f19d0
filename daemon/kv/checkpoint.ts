import { assert } from '../base/assert.ts';
import { stagingOwners, type CheckpointSink, type StagingLog } from '../ftl/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { encodeSequence, encodeState, segmentKey, sequenceKey, stateKey } from './metadata-records.ts';
import type { KvRoom } from './room.ts';
import type { Layer, Sequence } from './sequence.ts';
import { allocateTail } from './staged-records.ts';

/**
 * Ids that may be chosen before the next checkpoint: a crash that loses their sequences, and every trace of them, must not
 * give them to others. More would need a longer staging log than a checkpoint lets be.
 */
const CHOSEN_ID_WINDOW = 2n ** 20n;
/** Rows of one staged record, unless a single token has more. */
const STAGED_ROWS_BYTES_MAX = 262_144;

/** A reclaimed sequence whose metadata records are still there. */
export interface RemovedSequence {
  readonly id: bigint;
  /** Per layer. */
  readonly segmentCounts: readonly number[];
}

export const removedOf = (sequence: Sequence): RemovedSequence => ({
  id: sequence.id,
  segmentCounts: sequence.layers.map((layer) => layer.table.savedSegmentCount),
});

/** Stages the tail tokens of one sequence that are not staged, or all of them. */
export function stageTails(room: KvRoom, sequence: Sequence, all: boolean, stage: (payload: Uint8Array) => void): void {
  const { rowBytes, headCount, groupTokens } = sequence.layout;
  const tokensMax = Math.max(1, Math.floor(STAGED_ROWS_BYTES_MAX / (headCount * (rowBytes[0] + rowBytes[1]))));
  for (const [layerIndex, layer] of sequence.layers.entries()) {
    const groupStart = Math.floor(layer.length / groupTokens) * groupTokens;
    let from = all ? groupStart : Math.max(layer.stagedLength, groupStart);
    while (from < layer.length) {
      const tokenCount = Math.min(tokensMax, layer.length - from);
      stage(tailRecord(room, sequence, layerIndex, layer, from, tokenCount));
      from += tokenCount;
    }
    layer.stagedLength = layer.length;
  }
}

function tailRecord(
  room: KvRoom,
  sequence: Sequence,
  layerIndex: number,
  layer: Layer,
  firstToken: number,
  tokenCount: number,
): Uint8Array {
  const { layout } = sequence;
  const { slab } = layer;
  assert(slab !== undefined, 'a layer with tail tokens has a slab');
  const { record, rows } = allocateTail(
    { sequenceId: sequence.id, layer: layerIndex, generation: layer.generation, firstToken, tokenCount },
    layout.headCount,
    layout.rowBytes,
  );
  const row = firstToken % layout.groupTokens;
  let at = 0;
  for (let head = 0; head < layout.headCount; head++) {
    for (const part of [0, 1] as const) {
      const sizeBytes = tokenCount * layout.rowBytes[part];
      const from = slab.row(head, part, row);
      rows.set(room.arena.bytes.subarray(from, from + sizeBytes), at);
      at += sizeBytes;
    }
  }
  room.counters.stagedTailBytes += record.byteLength;
  return record;
}

/** For FUA: what is in the tail alone goes to the log, nothing to the metadata store. */
export function stageBuffered(room: KvRoom, log: StagingLog): void {
  for (const sequence of room.dirty) {
    stageTails(room, sequence, false, (payload) => log.append(stagingOwners.kv, payload));
  }
}

/**
 * Gives a checkpoint everything that changed since the last one. `live`: all sequences. Staging, which the disk may
 * refuse, comes before the first change of state; the checkpoint after a failed one stages everything again.
 */
export function checkpointSequences(
  room: KvRoom,
  sink: CheckpointSink,
  live: Iterable<Sequence>,
  removed: readonly RemovedSequence[],
  nextId: bigint,
): void {
  for (const sequence of sink.restage ? live : room.dirty) {
    stageTails(room, sequence, sink.restage, (payload) => sink.stage(stagingOwners.kv, payload));
  }
  for (const { id, segmentCounts } of removed) {
    sink.remove(metaNamespaces.kvSequences, sequenceKey(id));
    segmentCounts.forEach((count, layer) => {
      for (let segment = 0; segment < count; segment++) {
        sink.remove(metaNamespaces.kvLayers, segmentKey(id, layer, segment));
      }
    });
  }
  for (const sequence of room.dirty) {
    sink.put(metaNamespaces.kvSequences, sequenceKey(sequence.id), encodeSequence(sequence));
    sequence.saved = true;
    sequence.layers.forEach(({ table }, layer) => {
      table.save(
        (segment, entries) => sink.put(metaNamespaces.kvLayers, segmentKey(sequence.id, layer, segment), entries),
        (segment) => sink.remove(metaNamespaces.kvLayers, segmentKey(sequence.id, layer, segment)),
      );
    });
  }
  room.dirty.clear();
  const storedId = sink.isClosing ? nextId : nextId + CHOSEN_ID_WINDOW;
  sink.put(metaNamespaces.kvState, stateKey, encodeState({ operation: sink.operation, nextId: storedId }));
}
