import assert from 'node:assert/strict';
import { test } from 'node:test';
import { failsWith } from './assertions.ts';
import {
  appendRows,
  assertEqualBytes,
  assertTokens,
  createSequence,
  openDrive,
  plainShape,
  readRows,
  rowsOf,
  rowsOfView,
  tokenRange,
} from './fixture.ts';
import { newRemains } from './memory-drive.ts';

test('tokens appended one by one and many at a time read back as they were, in both layouts', async () => {
  for (const headMajor of [false, true]) {
    const opened = await openDrive();
    const id = createSequence(opened);
    let length = 0;
    for (const count of [1, 1, 5, 1, 3, 40, 7, 1, 16]) {
      const appended = await appendRows(opened, id, 1, length, tokenRange(length, count), { headMajor });
      length += count;
      assert.equal(appended, length);
    }
    await assertTokens(opened, id, 1, tokenRange(0, length));
    await assertTokens(opened, id, 0, []);
    const part = { firstHead: 1, headCount: 1, headMajor, part: 2 } as const;
    const rows = await readRows(opened, id, 1, 6, 30, part);
    assertEqualBytes(rows, rowsOf(plainShape, 1, tokenRange(6, 30), part), 'one head of V');
    const view = opened.store.view(id, 1);
    assert.equal(view.length, 75);
    assert.equal(view.flashTokenCount, 72);
    const k = rowsOf(plainShape, 1, tokenRange(0, 75), { headMajor: true, firstHead: 1, headCount: 1, part: 1 });
    assertEqualBytes(await rowsOfView(opened, view, 1, 0), k, 'view of head 1');
    view.release();
  }
});

test("a long append programs each stream's groups one after another", async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 1, 0, tokenRange(0, 24));
  const order = opened.drive.programs.map(({ tag }) => [tag.head, tag.part, tag.group]);
  const expected = [];
  for (const head of [0, 1])
    for (const part of [0, 1]) for (const group of [0, 1, 2]) expected.push([head, part, group]);
  assert.deepEqual(order, expected);
});

test('rows of other types are converted on the way in and out', async () => {
  const opened = await openDrive();
  const id = createSequence(opened, { elementTypeK: 'bf16', elementTypeV: 'f32', headDimK: 24, headDimV: 20 });
  const shape = opened.store.shape(id);
  let length = 0;
  for (const elementType of ['f32', 'f16', 'bf16', undefined] as const) {
    for (const headMajor of [false, true]) {
      await appendRows(opened, id, 0, length, tokenRange(length, 11), { elementType, headMajor });
      length += 11;
    }
  }
  await assertTokens(opened, id, 0, tokenRange(0, length));
  for (const elementType of ['f32', 'f16', 'bf16'] as const) {
    for (const headMajor of [false, true]) {
      const found = await readRows(opened, id, 0, 3, length - 3, { elementType, headMajor });
      const expected = rowsOf(shape, 0, tokenRange(3, length - 3), { elementType, headMajor });
      assertEqualBytes(found, expected, `${elementType}, head major ${headMajor}`);
    }
  }
});

test('rows are quantised on the way in, compared as quantised, and read back as what they stand for', async () => {
  const opened = await openDrive();
  const types = { elementTypeK: 'int8', elementTypeV: 'int4' } as const;
  const id = createSequence(opened, { ...types, headDimK: 80, headDimV: 24 });
  const shape = opened.store.shape(id);
  let length = 0;
  for (const elementType of ['f32', 'f16', 'bf16', undefined] as const) {
    for (const headMajor of [false, true]) {
      await appendRows(opened, id, 0, length, tokenRange(length, 11), { elementType, headMajor });
      length += 11;
    }
  }
  await assertTokens(opened, id, 0, tokenRange(0, length));
  assert.equal(await appendRows(opened, id, 0, 4, tokenRange(4, 30), { elementType: 'f32' }), length);
  await assert.rejects(
    appendRows(opened, id, 0, 4, [4, 5, 99], { elementType: 'f32' }),
    failsWith('appendConflict', /token 6 of layer 0/, 6),
  );

  const tokens = tokenRange(3, length - 3);
  const floats = (bytes: Uint8Array): Float32Array => new Float32Array(bytes.slice().buffer);
  for (const part of [1, 2] as const) {
    const found = floats(await readRows(opened, id, 0, 3, tokens.length, { part, elementType: 'f32' }));
    const exact = floats(rowsOf(shape, 0, tokens, { part, elementType: 'f32' }));
    // Elements are 0 to 250, so a step is hardly more than 250 / 255, or 250 / 15.
    const halfStep = part === 1 ? 0.5 : 8.4;
    found.forEach((x, i) => assert.ok(Math.abs(x - exact[i]!) <= halfStep, `element ${i}: ${x}, was ${exact[i]!}`));
    assert.ok(found.some((x, i) => x !== exact[i]));
    // Quantised rows can be appended to a sequence of another type.
    const other = createSequence(opened, { elementTypeK: 'f32', elementTypeV: 'f32', headDimK: 80, headDimV: 24 });
    const type = part === 1 ? 'int8' : 'int4';
    await appendRows(opened, other, 0, 0, tokens, { elementType: type });
    const again = await readRows(opened, other, 0, 0, tokens.length, { part });
    assertEqualBytes(again, new Uint8Array(found.buffer), `${type} to f32`);
  }
});

test('pages of an append go to one channel after the other, and groups of a stream to all of them', async () => {
  const opened = await openDrive(newRemains({ pageSizeBytes: 4096, channelCount: 4, pageCount: 512 }));
  const id = createSequence(opened);
  const { groupTokens, kvHeadCount } = opened.store.shape(id);
  const streamCount = 2 * kvHeadCount;
  await appendRows(opened, id, 0, 0, tokenRange(0, 5 * groupTokens));
  const channels = opened.drive.programs.map(({ channel }) => channel);
  assert.equal(channels.length, 5 * streamCount);
  for (const [i, channel] of channels.entries()) assert.equal(channel, (channels[0]! + i) % 4);
  for (let group = 5; group < 13; group++) {
    await appendRows(opened, id, 0, group * groupTokens, tokenRange(group * groupTokens, groupTokens));
  }
  for (let stream = 0; stream < streamCount; stream++) {
    const later = opened.drive.programs.slice(5 * streamCount).filter(({ tag }) => tag.head * 2 + tag.part === stream);
    assert.deepEqual(
      later.map(({ channel }) => channel),
      Array.from({ length: 8 }, (_, i) => (5 + i + stream) % 4),
    );
  }
});

test('a repeat succeeds, an overlapping append extends, a gap and a difference are refused', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 21));
  for (const elementType of [undefined, 'f32'] as const) {
    for (const headMajor of [false, true]) {
      assert.equal(await appendRows(opened, id, 0, 0, tokenRange(0, 21), { elementType, headMajor }), 21);
      assert.equal(await appendRows(opened, id, 0, 18, tokenRange(18, 2), { elementType, headMajor }), 21);
      assert.equal(await appendRows(opened, id, 0, 5, tokenRange(5, 7), { elementType, headMajor }), 21);
    }
  }
  assert.equal(opened.drive.programs.length, 8, 'repeats program nothing');
  await assert.rejects(appendRows(opened, id, 0, 22, [1]), failsWith('appendGap', /position 22.*21 tokens/, 21));
  const wrong = tokenRange(0, 30);
  wrong[13] = 1000;
  wrong[20] = 1001;
  for (const headMajor of [false, true]) {
    const conflict = failsWith('appendConflict', /token 13 of layer 0/, 13);
    await assert.rejects(appendRows(opened, id, 0, 0, wrong, { headMajor }), conflict);
    await assert.rejects(appendRows(opened, id, 0, 9, wrong.slice(9), { headMajor }), conflict);
    await assert.rejects(
      appendRows(opened, id, 0, 18, wrong.slice(18), { headMajor }),
      failsWith('appendConflict', /token 20/),
    );
  }
  await assertTokens(opened, id, 0, tokenRange(0, 21));
  assert.equal(await appendRows(opened, id, 0, 4, tokenRange(4, 30)), 34);
  await assertTokens(opened, id, 0, tokenRange(0, 34));
});

test('a repeat compares bits, after conversion', async () => {
  const opened = await openDrive();
  const id = createSequence(opened, { kvHeadCount: 1, headDimK: 8, headDimV: 8 });
  const sizeBytes = 16 * 4;
  const offset = opened.arena.allocate(sizeBytes);
  const floats = new Float32Array(opened.arena.buffer, offset, 16);
  const source = { offset, elementType: 'f32', headMajor: false } as const;
  floats.fill(1.0001);
  await opened.store.append(id, 0, 0, 1, source);
  floats.fill(1.0002);
  assert.equal(await opened.store.append(id, 0, 0, 1, source), 1, 'both are 1.0 in f16');
  floats[15] = 1.01;
  await assert.rejects(opened.store.append(id, 0, 0, 1, source), failsWith('appendConflict', /token 0/));
});

test('head dimensions that are no powers of two, and page sizes', async () => {
  for (const pageSizeBytes of [4096, 16_384]) {
    for (const [headDimK, headDimV] of [
      [9, 13],
      [80, 96],
      [255, 8],
      [129, 256],
    ] as const) {
      const opened = await openDrive(newRemains({ pageSizeBytes, channelCount: 3, pageCount: 512 }));
      const id = createSequence(opened, { headDimK, headDimV, groupTokens: 0, elementTypeV: 'bf16' });
      const { groupTokens } = opened.store.shape(id);
      assert.equal(groupTokens, Math.floor(pageSizeBytes / (2 * Math.max(headDimK, headDimV))));
      const count = groupTokens * 2 + 3;
      await appendRows(opened, id, 0, 0, tokenRange(0, groupTokens - 1));
      await appendRows(opened, id, 0, groupTokens - 1, tokenRange(groupTokens - 1, count - groupTokens + 1));
      await assertTokens(opened, id, 0, tokenRange(0, count));
      const view = opened.store.view(id, 0);
      const expected = rowsOf(opened.store.shape(id), 0, tokenRange(0, count), {
        headMajor: true,
        firstHead: 1,
        headCount: 1,
        part: 2,
      });
      assertEqualBytes(await rowsOfView(opened, view, 1, 1), expected, 'view, padding checked');
      view.release();
    }
  }
});

test('padding is counted and shown', async () => {
  const opened = await openDrive();
  const id = createSequence(opened, { groupTokens: 5, headDimV: 48 });
  await appendRows(opened, id, 0, 0, tokenRange(0, 12));
  const summary = opened.store.summary(id);
  assert.equal(summary.paddingBytesPerPageK, 4096 - 5 * 64);
  assert.equal(summary.paddingBytesPerPageV, 4096 - 5 * 96);
  assert.equal(summary.pageCount, 8);
  assert.equal(summary.bufferedTokenCount, 2);
  const padding = 4 * (summary.paddingBytesPerPageK + summary.paddingBytesPerPageV);
  assert.equal(opened.store.snapshot().heldPaddingBytes, padding);
  assert.equal(opened.store.snapshot().programmedPaddingBytes, padding);
  await opened.store.truncate(id, 0, 4);
  assert.equal(opened.store.snapshot().heldPaddingBytes, 0);
});

test('a full drive and a full arena leave the layer as it was', async () => {
  const opened = await openDrive(newRemains({ pageSizeBytes: 4096, channelCount: 2, pageCount: 10 }));
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 19));
  const refused = appendRows(opened, id, 0, 19, tokenRange(19, 10));
  await assert.rejects(refused, failsWith('capacityExceeded', /4 pages.*2 are free/));
  await assertTokens(opened, id, 0, tokenRange(0, 19));
  assert.equal(await appendRows(opened, id, 0, 19, tokenRange(19, 4)), 23);
  const tight = await openDrive(newRemains({ pageSizeBytes: 65_536, channelCount: 2, pageCount: 64 }), {
    arenaBytes: 1024 * 1024 + 65_536,
  });
  const wide = createSequence(tight, {
    kvHeadCount: 16,
    headDimK: 256,
    headDimV: 256,
    groupTokens: 0,
    elementTypeK: 'f32',
    elementTypeV: 'f32',
  });
  await assert.rejects(appendRows(tight, wide, 0, 0, [0]), failsWith('bufferFull', /bytes asked for/));
  assert.deepEqual(tight.store.summary(wide).lengths, [0, 0]);
  assert.equal(tight.store.snapshot().tokenCount, 0);
});

test('a failing program leaves the layer as it was, and its pages are never taken for tokens', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 13));
  opened.drive.checkpoint();
  const held = opened.drive.heldPageCount;
  opened.drive.programsUntilFault = 5;
  await assert.rejects(appendRows(opened, id, 0, 13, tokenRange(500, 20)), failsWith('writeFault', /planted/));
  assert.equal(opened.drive.heldPageCount, held);
  await assertTokens(opened, id, 0, tokenRange(0, 13));
  const failed = opened.drive.operation;
  await appendRows(opened, id, 0, 13, tokenRange(13, 20));
  await assertTokens(opened, id, 0, tokenRange(0, 33));
  // The failed append's pages reach the media, and all but one of those that it was repeated with.
  const remains = opened.drive.powerCut(
    opened.drive.unsyncedRecordCount,
    ({ head, part, group }, operation) => operation < failed || head + part > 0 || group !== 1,
  );
  const again = await openDrive(remains);
  await assertTokens(again, id, 0, tokenRange(0, 13));
});

test('a disk that takes neither pages nor records leaves no pages that are taken for tokens later', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  await appendRows(opened, id, 0, 0, tokenRange(0, 13));
  opened.drive.programsUntilFault = 7;
  opened.drive.refusesRecords = true;
  // One group of it is whole on the media.
  await assert.rejects(appendRows(opened, id, 0, 13, tokenRange(500, 20)), failsWith('writeFault', /no record/));
  await assert.rejects(appendRows(opened, id, 0, 13, [600]), failsWith('writeFault', /no record/));
  opened.drive.refusesRecords = false;
  await appendRows(opened, id, 0, 13, tokenRange(13, 20));
  await assertTokens(opened, id, 0, tokenRange(0, 33));
  const again = await openDrive(opened.drive.powerCut(opened.drive.unsyncedRecordCount, () => true));
  assert.deepEqual(again.store.summary(id).lengths, [32, 0], 'whole groups');
  await assertTokens(again, id, 0, tokenRange(0, 32));
});

test('ranges that no layer can have are refused by name', async () => {
  const opened = await openDrive();
  const id = createSequence(opened);
  const source = { offset: 65_536, headMajor: false };
  const append = (layer: number, position: number, count: number) =>
    opened.store.append(id, layer, position, count, source);
  await assert.rejects(append(2, 0, 1), failsWith('layerRange', /layer 2, allowed are 0 to 1/));
  await assert.rejects(append(0, 0, 0), failsWith('tokenRange', /append of 0 tokens/));
  await assert.rejects(append(0, 0x7fff_ffff, 1), failsWith('tokenRange', /allowed up to 2147483647/));
  await assert.rejects(opened.store.append(99n, 0, 0, 1, source), failsWith('unknownSequence', /sequence 99/));
  await appendRows(opened, id, 0, 0, tokenRange(0, 4));
  await assert.rejects(readRows(opened, id, 0, 2, 3), failsWith('tokenRange', /3 tokens from 2, layer 0 has 4/));
  await assert.rejects(readRows(opened, id, 0, 0, 0), failsWith('tokenRange', /0 tokens/));
  await assert.rejects(
    readRows(opened, id, 0, 0, 1, { firstHead: 1, headCount: 2 }),
    failsWith('headRange', /2 heads from 1/),
  );
  await assert.rejects(readRows(opened, id, 5, 0, 1), failsWith('layerRange', /layer 5/));
});
