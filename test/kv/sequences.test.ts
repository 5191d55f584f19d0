/** Life of sequences: create, fork, truncate, reclaim, leases, ids, limits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '../../spec/limits.ts';
import { sequenceStates, sequenceTransition, sequenceTransitions } from '../../daemon/kv/sequence-state.ts';
import { resolveShape } from '../../daemon/kv/shape.ts';
import { failsWith } from './assertions.ts';
import { appendRows, assertTokens, createSequence, openDrive, plainShape, tokenRange, type Opened } from './fixture.ts';

const forkOf = ({ store }: Opened, source: bigint, tokenCount: number, id = 0n): Promise<bigint> =>
  store.fork(source, tokenCount, { id, label: 'fork', leaseSeconds: 0, owner: 8n });

test('shapes are checked against every limit, by name', () => {
  const resolve = (change: object) => () => resolveShape({ ...plainShape, ...change }, 16_384);
  const refusals: [object, RegExp][] = [
    [{ layerCount: 0 }, /layerCount is 0, allowed are 1 to 512/],
    [{ layerCount: 513 }, /layerCount is 513/],
    [{ kvHeadCount: 0 }, /kvHeadCount is 0/],
    [{ kvHeadCount: 1.5 }, /kvHeadCount is 1.5/],
    [{ headDimK: 7 }, /headDimK is 7, allowed are 8 to 256/],
    [{ headDimV: 257 }, /headDimV is 257/],
    [{ elementTypeK: 'f64' }, /elementTypeK is f64, allowed are f32, f16, bf16/],
    [{ elementTypeV: 'toString' }, /elementTypeV is toString/],
    [{ groupTokens: 257 }, /groupTokens is 257, allowed are 1 to 256 \(rows of 64 bytes in pages of 16384\)/],
    [{ groupTokens: -1 }, /groupTokens is -1/],
  ];
  for (const [change, text] of refusals) assert.throws(resolve(change), failsWith('invalidShape', text));
  assert.equal(resolve({ groupTokens: 0 })().groupTokens, 256);
  assert.equal(resolve({ groupTokens: 0, headDimK: 128, headDimV: 96 })().groupTokens, 64);
  assert.equal(resolve({ groupTokens: 0, elementTypeV: 'f32', headDimV: 100 })().groupTokens, 40);
});

test('ids that the drive chooses count up, are never chosen twice and step over requested ones', async () => {
  const opened = await openDrive();
  const { store, drive } = opened;
  assert.equal(createSequence(opened, {}, 2n), 2n);
  assert.equal(createSequence(opened), 1n);
  assert.equal(createSequence(opened), 3n);
  await store.reclaim(3n);
  assert.equal(createSequence(opened), 4n);
  assert.throws(() => createSequence(opened, {}, 4n), failsWith('sequenceExists', /sequence 4/));
  assert.equal(createSequence(opened, {}, 2n ** 64n - 1n), 2n ** 64n - 1n);
  assert.throws(() => createSequence(opened, {}, 2n ** 64n), failsWith('invalidField', /64 bits/));
  await store.reclaim(4n);
  drive.checkpoint();
  const killed = await openDrive(drive.kill());
  assert.ok(createSequence(killed) > 5n, 'sequences that were lost may have had the next ids');
  drive.checkpoint(false, true);
  const again = await openDrive(drive.kill());
  assert.equal(createSequence(again), 5n);
  assert.deepEqual(again.store.list(0n, 10), [1n, 2n, 5n, 2n ** 64n - 1n]);
  assert.deepEqual(again.store.list(2n, 1), [5n]);
  assert.deepEqual(again.store.list(2n ** 64n - 1n, 1), []);
});

test('labels, leases and owners are kept or refused', async () => {
  const opened = await openDrive();
  const { store } = opened;
  const request = { shape: plainShape, id: 0n, label: 'ä'.repeat(64), leaseSeconds: 5, owner: 2n ** 63n };
  const id = store.create(request);
  const { label, owner, leaseSeconds, parentId } = store.summary(id);
  assert.deepEqual(
    { label, owner, leaseSeconds, parentId },
    { label: request.label, owner: request.owner, leaseSeconds: 5, parentId: 0n },
  );
  assert.throws(
    () => store.create({ ...request, label: 'ä'.repeat(65) }),
    failsWith('invalidField', /130 bytes, allowed are 128/),
  );
  assert.throws(() => store.create({ ...request, label: 'a\0' }), failsWith('invalidField', /zero character/));
  assert.throws(() => store.create({ ...request, leaseSeconds: 2 ** 32 }), failsWith('invalidField', /lease of/));
  assert.throws(() => store.create({ ...request, owner: -1n }), failsWith('invalidField', /owner/));
});

test('there are as many sequences as the limit says', async () => {
  const opened = await openDrive();
  for (let i = 0; i < limits.sequenceCountMax; i++) createSequence(opened, { layerCount: 1 });
  assert.throws(
    () => createSequence(opened),
    failsWith('sequenceLimit', new RegExp(`allowed are ${limits.sequenceCountMax}`)),
  );
  await opened.store.reclaim(7n);
  createSequence(opened);
});

test('a fork shares whole groups and copies the rest', async () => {
  const opened = await openDrive();
  const { store, drive } = opened;
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 29));
  await appendRows(opened, id, 1, 0, tokenRange(0, 10));
  const programs = drive.programs.length;
  const whole = await forkOf(opened, id, 0xffff_ffff);
  const inPages = await forkOf(opened, id, 21);
  const none = await forkOf(opened, id, 0);
  assert.equal(drive.programs.length, programs, 'a fork programs nothing');
  assert.equal(store.summary(inPages).parentId, id);
  assert.equal(store.summary(inPages).sharedPageCount, 12);
  await assertTokens(opened, whole, 0, tokenRange(0, 29));
  await assertTokens(opened, whole, 1, tokenRange(0, 10));
  await assertTokens(opened, inPages, 0, tokenRange(0, 21));
  await assertTokens(opened, inPages, 1, tokenRange(0, 10));
  await assertTokens(opened, none, 0, []);
  await appendRows(opened, inPages, 0, 21, tokenRange(900, 12));
  await appendRows(opened, id, 0, 29, tokenRange(29, 12));
  await store.truncate(whole, undefined, 3);
  await assertTokens(opened, id, 0, tokenRange(0, 41));
  await assertTokens(opened, inPages, 0, [...tokenRange(0, 21), ...tokenRange(900, 12)]);
  await assertTokens(opened, whole, 0, tokenRange(0, 3));
  await store.reclaim(id);
  drive.checkpoint();
  await assertTokens(opened, inPages, 0, [...tokenRange(0, 21), ...tokenRange(900, 12)]);
  for (const left of [whole, inPages, none]) await store.reclaim(left);
  assert.equal(drive.holderCount, 0);
  const { tailBytes, tokenCount, heldPageCount, sequenceCount } = store.snapshot();
  assert.deepEqual([tailBytes, tokenCount, heldPageCount, sequenceCount], [0, 0, 0, 0]);
});

test('a fork that fails leaves nothing behind', async () => {
  const opened = await openDrive();
  const { store, drive } = opened;
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 29));
  const before = { ...store.snapshot() };
  const gone = store.reclaim(id);
  await assert.rejects(forkOf(opened, id, 5), failsWith('unknownSequence', /sequence 1/));
  await gone;
  const second = createSequence(opened);
  await appendRows(opened, second, 0, 0, tokenRange(0, 29));
  await assert.rejects(forkOf(opened, second, -1), failsWith('tokenRange', /fork at -1/));
  await assert.rejects(forkOf(opened, second, 1, second), failsWith('sequenceExists', /sequence 2/));
  drive.read = () => Promise.reject(new Error('planted'));
  await assert.rejects(forkOf(opened, second, 21, 50n), /planted/);
  const { tailBytes, tokenCount, heldPageCount, sequenceCount } = store.snapshot();
  assert.deepEqual(
    [tailBytes, tokenCount, heldPageCount, sequenceCount],
    [before.tailBytes, before.tokenCount, before.heldPageCount, 1],
  );
  assert.equal(createSequence(opened, {}, 50n), 50n, 'its id is free again');
});

test('truncate cuts at any token, one layer or all', async () => {
  const opened = await openDrive();
  const { store, drive } = opened;
  for (const length of [0, 1, 7, 8, 9, 16, 20, 24, 25, 28, 29]) {
    const id = createSequence(opened);
    await appendRows(opened, id, 0, 0, tokenRange(0, 29));
    await appendRows(opened, id, 1, 0, tokenRange(0, 29));
    await store.truncate(id, 1, length);
    await assertTokens(opened, id, 0, tokenRange(0, 29));
    await assertTokens(opened, id, 1, tokenRange(0, length));
    if (length < 29) await appendRows(opened, id, 1, length, tokenRange(700, 29 - length));
    await assertTokens(opened, id, 1, [...tokenRange(0, length), ...tokenRange(700, 29 - length)]);
    await store.truncate(id, undefined, length);
    await assertTokens(opened, id, 0, tokenRange(0, length));
    await store.reclaim(id);
  }
  assert.equal(drive.holderCount, 0);
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 5));
  const longer = failsWith('tokenRange', /length 1, layer 1 has 0 tokens/);
  await assert.rejects(store.truncate(id, undefined, 1), longer);
  await assertTokens(opened, id, 0, tokenRange(0, 5));
  await assert.rejects(store.truncate(id, 2, 0), failsWith('layerRange', /layer 2/));
});

test('changes of one sequence happen in the order asked for', async () => {
  const opened = await openDrive();
  const { store } = opened;
  const id = createSequence(opened);
  const steps = [
    appendRows(opened, id, 0, 0, tokenRange(0, 21)),
    appendRows(opened, id, 0, 21, tokenRange(21, 9)),
    store.truncate(id, 0, 19),
    appendRows(opened, id, 0, 19, tokenRange(500, 10)),
    forkOf(opened, id, 28),
    store.truncate(id, 0, 2),
  ];
  const results = await Promise.all(steps);
  assert.deepEqual(results.slice(0, 4), [21, 30, undefined, 29]);
  await assertTokens(opened, results[4] as bigint, 0, [...tokenRange(0, 19), ...tokenRange(500, 9)]);
  await assertTokens(opened, id, 0, [0, 1]);
  const last = [store.reclaim(id), appendRows(opened, id, 0, 2, [2])];
  await assert.rejects(last[1] as Promise<number>, failsWith('unknownSequence', /sequence 1/));
  await last[0];
});

test('a lease ends when no command names the sequence for as long', async () => {
  const opened = await openDrive();
  const { store, clock, drive } = opened;
  const leased = createSequence(opened, {}, 0n, 10);
  const kept = createSequence(opened);
  await appendRows(opened, leased, 0, 0, tokenRange(0, 20));
  clock.advance(9);
  store.summary(leased);
  clock.advance(9);
  store.inspect(leased);
  assert.deepEqual(store.list(0n, 9), [leased, kept]);
  drive.checkpoint();
  clock.advance(2);
  assert.deepEqual(store.list(0n, 9), [kept]);
  assert.throws(() => store.view(leased, 0), failsWith('leaseExpired', /sequence 1/));
  assert.equal(drive.holderCount, 0);
  assert.equal(store.snapshot().expiredCount, 1);
  const again = await openDrive(drive.kill());
  assert.deepEqual(again.store.list(0n, 9), [kept], 'what a lease took away does not come back');
  assert.equal(createSequence(opened, {}, leased), leased);
  store.view(leased, 0).release();
  store.close();
  assert.equal(clock.timerCount, 0);
});

test('a clock that jumps, ahead or back, ends no lease early', async () => {
  const opened = await openDrive();
  const { store, clock } = opened;
  const leased = createSequence(opened, {}, 0n, 10);
  const isThere = (): boolean => store.list(0n, 9).includes(leased);
  clock.advance(5);
  for (const jumpSeconds of [3600, -7200, 86_400, -10]) {
    clock.jump(jumpSeconds);
    clock.advance(1);
    assert.ok(isThere(), `after ${jumpSeconds} s`);
    store.summary(leased);
    clock.advance(7);
    assert.ok(isThere(), `named after ${jumpSeconds} s`);
  }
  clock.jump(-1e6);
  clock.advance(13);
  assert.ok(!isThere(), 'but it ends');
});

test('the state table has no way back', () => {
  for (const from of sequenceStates) {
    for (const to of sequenceStates) {
      if (sequenceTransitions[from].includes(to)) assert.equal(sequenceTransition(from, to), to);
      else assert.throws(() => sequenceTransition(from, to), /cannot go/);
    }
  }
  assert.deepEqual(sequenceTransitions.reclaimed, []);
});

test('on a drive that may write no more, sequences are read, repeated and reclaimed, and leases do not end', async () => {
  const opened = await openDrive();
  const { store, drive, clock } = opened;
  const id = createSequence(opened, {}, 0n, 3);
  await appendRows(opened, id, 0, 0, tokenRange(0, 20));
  drive.isReadOnly = true;
  const isProtected = failsWith('namespaceWriteProtected', /write protected/);
  assert.throws(() => createSequence(opened), isProtected);
  await assert.rejects(forkOf(opened, id, 10), isProtected);
  await assert.rejects(store.truncate(id, undefined, 5), isProtected);
  await assert.rejects(appendRows(opened, id, 0, 20, [20]), isProtected, 'to the tail, which needs no page');
  await assert.rejects(appendRows(opened, id, 0, 10, tokenRange(10, 11)), isProtected, 'a repeat with something new');
  assert.equal(await appendRows(opened, id, 0, 10, tokenRange(10, 10)), 20, 'a repeat changes nothing');
  clock.advance(10);
  await assertTokens(opened, id, 0, tokenRange(0, 20));
  drive.isReadOnly = false;
  clock.advance(10);
  assert.throws(() => store.summary(id), failsWith('leaseExpired', /sequence 1/));
  const other = createSequence(opened);
  drive.isReadOnly = true;
  await store.reclaim(other);
  assert.deepEqual(store.list(0n, 10), []);
});
