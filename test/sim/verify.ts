/** The whole of a drive, read through its commands after a start, against what it may hold. */
import assert from 'node:assert/strict';
import { elementTypeOf } from '../../spec/element-type.ts';
import { querySelectors, sequenceInfo } from '../../spec/kv-commands.ts';
import { kvOpcodes } from '../../spec/opcodes.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { idFields } from '../commands/kv-host.ts';
import { readAllBlocks } from './block-work.ts';
import type { HostSession } from './host-session.ts';
import { listSequences, readRows } from './kv-work.ts';
import type { FlushScope, FoundSequence, KvModel } from './kv-model.ts';
import { rowsOf } from './token-rows.ts';
import type { World } from './world.ts';

/** The process was killed since the drive was last verified, and its power never went. */
export interface Killed {
  /** What had completed then. */
  readonly scope: FlushScope;
}

/** Fails if something durable is missing, or something is there that must not be. What is found is the model from then on. */
export async function verifyDrive(world: World, session: HostSession, killed: Killed | undefined): Promise<void> {
  const { blocks, kv } = world;
  const versions = await readAllBlocks(world, session);
  const found = await findSequences(world, session, kv);
  if (killed) {
    blocks.killed();
    kv.killed(killed.scope);
  }
  kv.adopt(found, world.nowNs, blocks.adopt(versions));
  const { lostTokenCount, droppedOperationCount } = world.drive.kv.snapshot().recovery;
  assert.equal(lostTokenCount, 0, 'tokens that the last transaction knew are lost');
  assert.equal(droppedOperationCount, 0, 'operations on sequences that no record made');
}

async function findSequences(world: World, session: HostSession, model: KvModel): Promise<FoundSequence[]> {
  const ids = await listSequences(world, session);
  assert.ok(ids, 'the list of sequences');
  const found: FoundSequence[] = [];
  for (const id of ids) found.push(await findSequence(session, id, model));
  return found;
}

async function findSequence(session: HostSession, id: bigint, model: KvModel): Promise<FoundSequence> {
  const fields = { opcode: kvOpcodes.query.opcode, ...idFields(id), cdw12: querySelectors.sequence };
  const { error, data } = await session.host.io.run(fields, undefined, sequenceInfo.sizeBytes + 4 * 16);
  assert.equal(error, undefined, `KV Query of ${id}`);
  const { label, elementTypeK, elementTypeV, ...info } = sequenceInfo.decode(data);
  assert.match(label, /^s\d+$/);
  const shape: SequenceShape = {
    ...info,
    elementTypeK: elementTypeOf(elementTypeK)!,
    elementTypeV: elementTypeOf(elementTypeV)!,
  };
  const view = new DataView(data.buffer, data.byteOffset + sequenceInfo.sizeBytes);
  const lengths = Array.from({ length: shape.layerCount }, (_, layer) => view.getUint32(4 * layer, true));
  const uid = Number(label.slice(1));
  const isRotten = model.sequences.some((sequence) => sequence.uid === uid && sequence.isRotten);
  /** undefined: cells have rotted. */
  const rows: (Uint8Array | undefined)[] = [];
  for (const [layer, count] of lengths.entries()) {
    if (count === 0) {
      rows.push(new Uint8Array(0));
      continue;
    }
    const request = { start: 0, count, options: {} };
    const read = await readRows(session, { id, shape }, layer, request);
    const isExcused = isRotten && read.error === 'unrecoveredRead';
    assert.ok(read.error === undefined || isExcused, `KV Read Back of ${id}, layer ${layer} ends with ${read.error}`);
    rows.push(read.error === undefined ? read.data : undefined);
  }
  return {
    id,
    uid,
    lengths,
    isReadable: (layer) => rows[layer] !== undefined,
    holds: (layer, tokens) => {
      const found = rows[layer];
      return found === undefined || Buffer.compare(found, rowsOf(shape, layer, tokens)) === 0;
    },
  };
}
