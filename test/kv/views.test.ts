/** What a running ATTN sees: views held across everything that changes a layer. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LayerView } from '../../daemon/kv/contract.ts';
import {
  appendRows,
  assertEqualBytes,
  assertTokens,
  createSequence,
  openDrive,
  plainShape,
  rowsOf,
  rowsOfTail,
  rowsOfView,
  tokenRange,
  type Opened,
} from './fixture.ts';

function assertTail(opened: Opened, view: LayerView, tokens: readonly number[]): void {
  for (const head of [0, 1]) {
    for (const part of [0, 1] as const) {
      const expected = rowsOf(plainShape, 0, tokens, { firstHead: head, headCount: 1, part: part === 0 ? 1 : 2 });
      assertEqualBytes(rowsOfTail(opened.arena, view, head, part, 64), expected, `tail of head ${head}, part ${part}`);
    }
  }
}

test('a held view keeps its tail rows while tokens are appended, cut, rewritten and reclaimed', async () => {
  const opened = await openDrive();
  const { store } = opened;
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 13));
  const first = store.view(id, 0);
  await appendRows(opened, id, 0, 13, tokenRange(13, 2));
  const second = store.view(id, 0);
  await store.truncate(id, 0, 10);
  await appendRows(opened, id, 0, 10, tokenRange(100, 5));
  const third = store.view(id, 0);
  await appendRows(opened, id, 0, 15, tokenRange(200, 20));
  const fourth = store.view(id, 0);
  await store.truncate(id, 0, 0);
  await appendRows(opened, id, 0, 0, tokenRange(300, 7));
  const fifth = store.view(id, 0);
  await store.reclaim(id);
  const other = createSequence(opened);
  await appendRows(opened, other, 0, 0, tokenRange(400, 7));
  assertTail(opened, first, tokenRange(8, 5));
  assertTail(opened, second, tokenRange(8, 7));
  assertTail(opened, third, [8, 9, 100, 101, 102, 103, 104]);
  assertTail(opened, fourth, tokenRange(217, 3));
  assertTail(opened, fifth, tokenRange(300, 7));
  for (const view of [first, second, third, fourth, fifth]) view.release();
  await store.reclaim(other);
  assert.equal(store.snapshot().tailBytes, 0);
});

test('the group after a full one takes the same memory unless a view holds it', async () => {
  const opened = await openDrive();
  const { store } = opened;
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 5));
  const slabBytes = store.snapshot().tailBytes;
  await appendRows(opened, id, 0, 5, tokenRange(5, 9));
  assert.equal(store.snapshot().tailBytes, slabBytes);
  const view = store.view(id, 0);
  await appendRows(opened, id, 0, 14, tokenRange(14, 9));
  assert.equal(store.snapshot().tailBytes, 2 * slabBytes);
  assertTail(opened, view, tokenRange(8, 6));
  view.release();
  assert.equal(store.snapshot().tailBytes, slabBytes);
  await appendRows(opened, id, 0, 23, [23]);
  assert.equal(store.snapshot().tailBytes, 0, 'no incomplete group, no memory');
});

test('tokens of a view are those at the call, and pages are what the view names then', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 16));
  const view = opened.store.view(id, 0);
  const expected = rowsOf(plainShape, 0, tokenRange(0, 16), { headMajor: true, firstHead: 0, headCount: 1, part: 1 });
  assertEqualBytes(await rowsOfView(opened, view, 0, 0), expected, 'two whole groups');
  assert.throws(() => view.tail(0, 0), /tail rows/);
  assert.throws(() => view.page(2, 0, 0), /group 2/);
  view.release();
  assert.throws(() => view.release(), /once/);
});

test('a view taken while a truncate reads pages keeps its rows', async () => {
  const opened = await openDrive();
  const { store, drive } = opened;
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 13));
  await appendRows(opened, id, 1, 0, tokenRange(0, 20));
  let open = (): void => undefined;
  drive.gate = new Promise((resolve) => {
    open = resolve;
  });
  const cut = store.truncate(id, undefined, 12);
  await new Promise((resolve) => setImmediate(resolve));
  const view = store.view(id, 0);
  open();
  await cut;
  await appendRows(opened, id, 0, 12, tokenRange(50, 3));
  assertTail(opened, view, tokenRange(8, 5));
  view.release();
  await assertTokens(opened, id, 0, [...tokenRange(0, 12), 50, 51, 52]);
  await assertTokens(opened, id, 1, tokenRange(0, 12));
});

test('a read-back sees the tokens at the call, whatever happens while it waits for pages', async () => {
  const opened = await openDrive();
  const { store, drive, arena } = opened;
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 29));
  const request = {
    id,
    layer: 0,
    part: 3,
    tokenStart: 0,
    tokenCount: 29,
    firstHead: 0,
    headCount: 2,
    headMajor: false,
  } as const;
  const target = arena.allocate(store.readBackSizeBytes(request));
  let open = (): void => undefined;
  drive.gate = new Promise((resolve) => {
    open = resolve;
  });
  const reading = store.readBack(request, target);
  await store.reclaim(id);
  drive.checkpoint();
  assert.equal(drive.heldPageCount, 12);
  open();
  await reading;
  const expected = rowsOf(plainShape, 0, tokenRange(0, 29));
  assertEqualBytes(arena.view(target, expected.byteLength), expected, 'rows of a reclaimed sequence');
  assert.equal(drive.heldPageCount, 0);
});
