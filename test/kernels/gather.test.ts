import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ARENA_RESERVED_BYTES, createArena } from '../../daemon/base/arena.ts';
import { type KernelName, kernelNames } from '../../daemon/kernels/contract.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';

const SPAN_BYTES = 4096;
const reason = nativeUnavailable();
const skipOf = (name: KernelName): string | false =>
  name === 'native' && reason !== undefined ? `NOT TESTED: native kernels: ${reason}` : false;

for (const name of kernelNames) {
  test(`${name}: rows that lie apart come to lie one behind the other, and nothing else changes`, {
    skip: skipOf(name),
  }, () => {
    const arena = createArena(1 << 20);
    const kernels = loadKernels(name, arena);
    const base = arena.allocate(3 * SPAN_BYTES);
    const shape = fc.record({
      rowBytes: fc.integer({ min: 1, max: 300 }),
      gap: fc.nat(400),
      count: fc.nat(5),
      at: fc.nat(90),
    });
    fc.assert(
      fc.property(shape, ({ rowBytes, gap, count, at }) => {
        const before = Uint8Array.from({ length: 3 * SPAN_BYTES }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
        arena.bytes.set(before, base);
        const expected = before.slice();
        const target = 2 * SPAN_BYTES + at;
        for (let row = 0; row < count; row++) {
          const from = at + row * (rowBytes + gap);
          expected.set(before.subarray(from, from + rowBytes), target + row * rowBytes);
        }
        kernels.gather(base + at, rowBytes + gap, rowBytes, count, base + target);
        assert.ok(Buffer.compare(arena.view(base, before.length), expected) === 0);
      }),
      { seed: 3 },
    );
  });
}

test('native: rows outside the arena are refused', { skip: skipOf('native') }, () => {
  const arena = createArena(1 << 20);
  const kernels = loadKernels('native', arena);
  const inside = ARENA_RESERVED_BYTES;
  const wrong: readonly [number, number, number, number, number][] = [
    [arena.sizeBytes - 100, 64, 64, 2, inside],
    [inside, 64, 64, 2, arena.sizeBytes - 127],
    [inside, 63, 64, 1, inside],
    [inside, 2 ** 40, 64, 2, inside],
    [inside, 64, 64, 2 ** 52, inside],
    [2 ** 53 - 1, 64, 64, 1, inside],
  ];
  for (const rows of wrong) assert.throws(() => kernels.gather(...rows), /outside/, rows.join(' '));
});
