import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ARENA_RESERVED_BYTES, arenaBytes, createArena, type Arena } from '../../daemon/base/arena.ts';
import { DriveError } from '../../daemon/base/errors.ts';

const MEBIBYTE = 1 << 20;

const isFull = (error: unknown): boolean => error instanceof DriveError && error.code === 'bufferFull';

/** Allocates blocks of one size until there is no room. */
function fill(arena: Arena, sizeBytes: number): number[] {
  const offsets: number[] = [];
  for (;;) {
    try {
      offsets.push(arena.allocate(sizeBytes));
    } catch (error) {
      assert.ok(isFull(error));
      return offsets;
    }
  }
}

test('blocks are aligned, apart, and inside', () => {
  const operation = fc.record({
    size: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 90_000 })),
    freeIndex: fc.option(fc.nat(40), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 120 }), (operations) => {
      const arena = createArena(MEBIBYTE);
      const held: { offset: number; size: number }[] = [];
      for (const { size, freeIndex } of operations) {
        if (freeIndex !== undefined && held.length > 0) {
          const [block] = held.splice(freeIndex % held.length, 1);
          arena.free(block!.offset);
          continue;
        }
        let offset: number;
        try {
          offset = arena.allocate(size);
        } catch (error) {
          assert.ok(isFull(error));
          continue;
        }
        assert.equal(offset % (size < 4096 ? 64 : 4096), 0);
        assert.ok(offset >= ARENA_RESERVED_BYTES && offset + size <= arena.sizeBytes);
        for (const other of held) {
          assert.ok(offset + size <= other.offset || other.offset + other.size <= offset, 'blocks overlap');
        }
        held.push({ offset, size });
      }
      for (const { offset } of held) arena.free(offset);
      assert.equal(arena.freeBytes, arena.sizeBytes - ARENA_RESERVED_BYTES);
      // Whatever came before, all of it is one block again.
      arena.allocate(arena.freeBytes);
    }),
    { seed: 42, numRuns: 300 },
  );
});

test('a full arena says so, and takes again what is freed', () => {
  const arena = createArena(MEBIBYTE);
  const offsets = fill(arena, 16_384);
  assert.equal(offsets.length, (MEBIBYTE - ARENA_RESERVED_BYTES) / 16_384);
  assert.throws(() => arena.allocate(1), /768|0 of 1048576 free/);
  arena.free(offsets[7]!);
  assert.equal(arena.allocate(16_384), offsets[7]);
});

test('many small blocks become one large one', () => {
  const arena = createArena(MEBIBYTE);
  const offsets = fill(arena, 64);
  offsets.forEach((offset, i) => {
    if (i % 2 === 0) arena.free(offset);
  });
  assert.throws(() => arena.allocate(128), isFull);
  offsets.forEach((offset, i) => {
    if (i % 2 === 1) arena.free(offset);
  });
  const offset = arena.allocate(500_000);
  assert.equal(offset % 4096, 0);
});

test('a block carved behind a small one keeps its alignment', () => {
  const arena = createArena(MEBIBYTE);
  const offsets = fill(arena, 8192);
  arena.free(offsets[3]!);
  arena.allocate(64);
  const carved = arena.allocate(4096);
  assert.equal(carved % 4096, 0);
  assert.throws(() => arena.allocate(4096), isFull);
});

test('freeing twice, or what was never allocated, is a broken invariant', () => {
  const arena = createArena(MEBIBYTE);
  const offset = arena.allocate(100);
  arena.free(offset);
  assert.throws(() => arena.free(offset), /not allocated/);
  assert.throws(() => arena.free(12_345), /not allocated/);
});

test('views lie in the memory that every thread sees', () => {
  const arena = createArena(ARENA_RESERVED_BYTES + 1);
  const offset = arena.allocate(10);
  arena.view(offset, 10).fill(7);
  assert.ok(arena.buffer instanceof SharedArrayBuffer);
  assert.deepEqual([...arenaBytes(arena.memory).subarray(offset, offset + 10)], new Array(10).fill(7));
  assert.throws(() => arena.view(0, 8), /view/);
  assert.throws(() => arena.view(arena.sizeBytes - 4, 8), /view/);
  assert.throws(() => createArena(ARENA_RESERVED_BYTES), /at most 4 GiB/);
});
