/** What write amplification is compared with, and that the drive's own translation layer comes to it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { defaultGcOptions } from '../../daemon/ftl/gc-options.ts';
import { runBlocks } from '../../tools/bench/waf/block-run.ts';
import { runKv } from '../../tools/bench/waf/kv-run.ts';
import { fifoWriteAmplification, greedyWriteAmplification, lambertW } from '../../tools/bench/waf/theory.ts';
import { hotCold, uniform, zipf } from '../../tools/bench/waf/traffic.ts';

const assertNear = (value: number, expected: number, tolerance: number, what: string): void =>
  assert.ok(Math.abs(value / expected - 1) <= tolerance, `${what}: ${value}, expected ${expected}`);

test('first in, first out: the values that the literature gives, and the equation they solve', () => {
  for (const [alpha, published] of [
    [1.07, 7.82],
    [1.15, 4.02],
    [1.28, 2.48],
  ] as const) {
    const amplification = fifoWriteAmplification(alpha);
    assert.equal(Number(amplification.toFixed(2)), published);
    const valid = 1 - 1 / amplification;
    assertNear(valid, Math.exp(-alpha * (1 - valid)), 1e-12, 'the valid share of a victim');
  }
  for (const x of [-0.3678, -0.3, -0.2, -0.1, -1e-6]) assertNear(lambertW(x) * Math.exp(lambertW(x)), x, 1e-9, 'W');
});

test('greedy falls with what there is to spare, and tends to first in, first out as blocks grow', () => {
  let last = Number.POSITIVE_INFINITY;
  for (let alpha = 1.02; alpha < 3; alpha += 0.001) {
    const amplification = greedyWriteAmplification(alpha, 64);
    assert.ok(amplification < last && amplification >= 1, `${amplification} at ${alpha}`);
    assert.ok(last === Number.POSITIVE_INFINITY || last - amplification < 0.06 * last, `no jump at ${alpha}`);
    last = amplification;
  }
  for (const alpha of [1.07, 1.15, 1.28]) {
    assertNear(greedyWriteAmplification(alpha, 1 << 20), fifoWriteAmplification(alpha), 1e-4, 'huge blocks');
    assert.ok(greedyWriteAmplification(alpha, 64) < fifoWriteAmplification(alpha));
  }
});

/** Blocks, pages and a map, and nothing of the drive: what theory is about. */
function simulate(policy: 'fifo' | 'greedy', alpha: number, b: number, blockCount: number, random: Random): number {
  const logical = Math.floor((blockCount * b) / alpha);
  const blockOf = new Int32Array(logical).fill(-1);
  const pages: number[][] = Array.from({ length: blockCount + 1 }, () => []);
  const valid = new Int32Array(blockCount + 1);
  const full: number[] = [];
  const free = Array.from({ length: blockCount }, (_, i) => i);
  let open = blockCount;
  let programs = 0;
  const put = (page: number): void => {
    if (pages[open]!.length === b) {
      full.push(open);
      open = free.pop()!;
      pages[open] = [];
    }
    pages[open]!.push(page);
    blockOf[page] = open;
    valid[open]!++;
    programs++;
  };
  const write = (page: number): void => {
    if (blockOf[page]! >= 0) valid[blockOf[page]!]!--;
    blockOf[page] = -1;
    put(page);
    while (free.length < 1) {
      const at =
        policy === 'fifo' ? 0 : full.reduce((best, one, i) => (valid[one]! < valid[full[best]!]! ? i : best), 0);
      const [victim] = full.splice(at, 1) as [number];
      const moved = pages[victim]!.filter((one) => blockOf[one] === victim);
      pages[victim] = [];
      valid[victim] = 0;
      free.unshift(victim);
      for (const one of new Set(moved)) put(one);
    }
  };
  for (let page = 0; page < logical; page++) write(page);
  for (let i = 0; i < 6 * logical; i++) write(random.nextUint32() % logical);
  const before = programs;
  for (let i = 0; i < 4 * logical; i++) write(random.nextUint32() % logical);
  return (programs - before) / (4 * logical);
}

test('a simulation that shares nothing with the drive comes to what theory says', () => {
  const random = createSeededRandom(3);
  for (const alpha of [1.15, 1.28]) {
    for (const b of [16, 32]) {
      const greedy = simulate('greedy', alpha, b, 400, random);
      assertNear(greedy, greedyWriteAmplification(alpha, b), 0.02, `greedy, ${b} pages, alpha ${alpha}`);
    }
    assertNear(simulate('fifo', alpha, 32, 400, random), fifoWriteAmplification(alpha), 0.02, `fifo, alpha ${alpha}`);
  }
});

const small = { lbaCount: 4096, pagesPerSuperblock: 16, overProvisioning: 0.28, windowCount: 8, seed: 1 };

test('so does the drive', { timeout: 120_000 }, async () => {
  for (const policy of ['fifo', 'greedy'] as const) {
    const gc = { ...defaultGcOptions, policy };
    const { writeAmplification, alpha } = await runBlocks({ ...small, gc, traffic: uniform });
    const expected =
      policy === 'fifo' ? fifoWriteAmplification(alpha) : greedyWriteAmplification(alpha, small.pagesPerSuperblock);
    assertNear(writeAmplification, expected, 0.03, `${policy}, alpha ${alpha}`);
  }
});

test('skewed traffic costs less where hosts, copies, and hot and cold blocks are apart', {
  timeout: 120_000,
}, async () => {
  const cost: number[] = [];
  for (const placement of ['plain', 'copies', 'lifetime'] as const) {
    const gc = { ...defaultGcOptions, placement };
    cost.push((await runBlocks({ ...small, overProvisioning: 0.15, gc, traffic: zipf(0.99) })).writeAmplification);
  }
  const [plain, copies, lifetime] = cost as [number, number, number];
  assert.ok(copies < 0.95 * plain && lifetime < 0.98 * copies, cost.join(', '));
});

test('pages of sequences that are apart die together; the same trace costs copies where they are not', {
  timeout: 120_000,
}, async () => {
  const run = (placement: 'plain' | 'lifetime') =>
    runKv({
      pageCount: 16_384,
      pagesPerSuperblock: 32,
      overProvisioning: 0.07,
      gc: { ...defaultGcOptions, placement },
      growingCount: 16,
      promptSuperblocksMax: 16,
      warmUpCapacities: 1,
      measuredCapacities: 2,
      seed: 5,
    });
  const plain = await run('plain');
  const apart = await run('lifetime');
  assert.equal(apart.traceHash, plain.traceHash, 'one trace');
  assert.ok(plain.writeAmplification > 1.05, `plain: ${plain.writeAmplification}`);
  assert.ok(apart.writeAmplification <= 1.02, `by sequence: ${apart.writeAmplification}`);
});

test('traffic is as skewed as it says', () => {
  const random = createSeededRandom(11);
  const draw = (pick: () => number, count: number): Map<number, number> => {
    const drawn = new Map<number, number>();
    for (let i = 0; i < count; i++) {
      const lba = pick();
      drawn.set(lba, (drawn.get(lba) ?? 0) + 1);
    }
    return drawn;
  };
  const count = 200_000;
  const topShare = (drawn: Map<number, number>, top: number): number =>
    [...drawn.values()]
      .sort((a, b) => b - a)
      .slice(0, top)
      .reduce((sum, one) => sum + one, 0) / count;
  const harmonic = (n: number): number => Array.from({ length: n }, (_, i) => (i + 1) ** -0.99).reduce((a, b) => a + b);
  assertNear(topShare(draw(zipf(0.99).picker(1000, random), count), 10), harmonic(10) / harmonic(1000), 0.02, 'Zipf');
  assertNear(topShare(draw(hotCold(0.1, 0.9).picker(1000, random), count), 100), 0.9, 0.01, 'hot and cold');
  const even = draw(uniform.picker(100, random), count);
  for (const times of even.values()) assertNear(times, count / 100, 0.1, 'uniform');
});
