/** What the attention room is handed, and what becomes of what it leaves in the arena. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AttendOptions, AttendTarget, AttentionEngine } from '../../daemon/attention/contract.ts';
import { ALL_TOKENS, attendFlags, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { kvOpcodes } from '../../spec/opcodes.ts';
import { createRig, type Rig } from '../controller/rig.ts';
import { append, attendBytes, bytesOf, createSequence, payloadAt, queries, rows } from './kv-host.ts';

const ROOM_BYTES = 4096;

/** Fills outputs, and a little behind them, with FFh, and remembers what it was asked. */
class LeavingTraces implements AttentionEngine {
  rig: Rig | undefined;
  options: AttendOptions | undefined;
  targets: readonly AttendTarget[] = [];

  async attend(options: AttendOptions, targets: readonly AttendTarget[]) {
    this.options = options;
    this.targets = targets;
    for (const { outputOffset } of targets) this.rig?.arena.bytes.fill(0xff, outputOffset, outputOffset + 20);
    return { flashTokenCount: 0, bufferedTokenCount: 0, pageCount: 0 };
  }
}

test('padding between outputs and statistics is zero whatever lay there', async (t) => {
  const attention = new LeavingTraces();
  const rig = await createRig(t, { modules: { attention } });
  attention.rig = rig;
  const { cntlid } = await rig.admin();
  const io = await rig.io(cntlid);
  // One head of 9 elements in f16: 18 bytes, 2 of padding, 8 of statistics.
  const id = await createSequence(io, { kvHeadCount: 1, headDimK: 8, headDimV: 9 });
  for (const outOffset of [0, 6]) {
    const entry = {
      sequenceId: id,
      queryHeadsPerKvHead: 1,
      queryTokenCount: 1,
      tokenEnd: ALL_TOKENS,
      queryOffset: payloadAt(1),
      outOffset,
    };
    const bytes = attendBytes({ outputType: 2, flags: attendFlags.statistics }, [entry], bytesOf(queries(1, 1)));
    const fields = { opcode: kvOpcodes.attendExchange.opcode, nsid: KV_CACHE_NSID, cdw10: 34 };
    const { status, data } = await io.run(fields, bytes);
    assert.equal(status, 0);
    assert.deepEqual([...data.subarray(outOffset, outOffset + 20)], [...new Array<number>(18).fill(0xff), 0, 0]);
  }
});

test('an entry without an end gets the length after every append; everything lies aligned, within the arena', async (t) => {
  const attention = new LeavingTraces();
  const rig = await createRig(t, { modules: { attention } });
  const { cntlid } = await rig.admin();
  const io = await rig.io(cntlid);
  const id = await createSequence(io);
  await append(io, id, 0, 20);
  const at = payloadAt(3);
  const query = bytesOf(queries(1, 4));
  const fresh = bytesOf(rows(20, 1));
  const entry = { sequenceId: id, queryHeadsPerKvHead: 2, queryTokenCount: 1 };
  const bytes = attendBytes(
    { scale: 0.5, softCap: 3, slidingWindow: 9, sinkCount: 2, flags: attendFlags.causal },
    [
      {
        ...entry,
        tokenEnd: ALL_TOKENS,
        queryOffset: at,
        appendTokenCount: 1,
        appendPosition: 20,
        appendOffset: at + query.length,
      },
      { ...entry, tokenEnd: ALL_TOKENS, queryOffset: at + 1, tokenStart: 2, queryPosition: 5, outOffset: 128 },
      { ...entry, tokenEnd: 7, queryOffset: at, firstQueryHead: 1, queryHeadCount: 2, outOffset: 257 },
    ],
    Buffer.concat([query, fresh]),
  );
  const { status } = await io.run(
    { opcode: kvOpcodes.attendExchange.opcode, nsid: KV_CACHE_NSID, cdw10: ROOM_BYTES },
    bytes,
  );
  assert.equal(status, 0);
  assert.deepEqual(
    attention.targets.map(({ tokenStart, tokenEnd, queryPosition, firstQueryHead, queryHeadCount }) => ({
      tokenStart,
      tokenEnd,
      queryPosition,
      firstQueryHead,
      queryHeadCount,
    })),
    [
      { tokenStart: 0, tokenEnd: undefined, queryPosition: 0, firstQueryHead: 0, queryHeadCount: 4 },
      { tokenStart: 2, tokenEnd: undefined, queryPosition: 5, firstQueryHead: 0, queryHeadCount: 4 },
      { tokenStart: 0, tokenEnd: 7, queryPosition: 0, firstQueryHead: 1, queryHeadCount: 2 },
    ],
  );
  const { scale, softCap, slidingWindow, sinkCount, causal, statistics } = attention.options as AttendOptions;
  assert.deepEqual([scale, softCap, slidingWindow, sinkCount, causal, statistics], [0.5, 3, 9, 2, true, false]);
  for (const { queryOffset, outputOffset } of attention.targets) {
    assert.deepEqual([queryOffset % 4, outputOffset % 4], [0, 0]);
    assert.ok(queryOffset < rig.arena.sizeBytes && outputOffset < rig.arena.sizeBytes);
  }
});
