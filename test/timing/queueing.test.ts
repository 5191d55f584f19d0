/** Queueing theory's answers for what dies and compute units are: servers with a constant service time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { latencyOf, PAGE_BYTES, smallModel } from './model.ts';

const ARRIVAL_COUNT = 300_000;
const SERVICE_NS = 40_000;

/** Mean waiting time of Poisson arrivals at a utilization of each server. */
function meanWaitNs(
  random: Random,
  arrivalsPerNs: number,
  latency: (arrivalNs: number) => number,
  arrivalCount = ARRIVAL_COUNT,
): number {
  let atNs = 0;
  let sumNs = 0;
  for (let i = 0; i < arrivalCount; i++) {
    atNs += -Math.log((random.nextUint32() + 1) / 2 ** 32) / arrivalsPerNs;
    sumNs += latency(Math.floor(atNs)) - SERVICE_NS;
  }
  return sumNs / arrivalCount;
}

const near = (actual: number, expected: number, tolerance: number, what: string): void =>
  assert.ok(Math.abs(actual / expected - 1) <= tolerance, `${what}: ${actual}, expected ${expected}`);

test('random reads wait for a die as the Pollaczek-Khinchine formula says (M/D/1), within 5 %', () => {
  for (const dieCount of [1, 16]) {
    for (const utilization of [0.3, 0.6, 0.8, 0.9]) {
      const random = createSeededRandom(utilization * 100 + dieCount);
      const model = smallModel({ shape: { diesPerChannel: dieCount } });
      const waitNs = meanWaitNs(random, (dieCount * utilization) / SERVICE_NS, (arrivalNs) =>
        latencyOf(model, arrivalNs, (job) => job.read(random.nextUint32() % (64 * dieCount), PAGE_BYTES)),
      );
      const expectedNs = (utilization * SERVICE_NS) / (2 * (1 - utilization));
      near(waitNs, expectedNs, 0.05, `${dieCount} dies at ${utilization}`);
    }
  }
});

/** Cosmetatos' approximation of M/D/c, from Erlang's formula for M/M/c; good to about 2 % at these loads. */
function waitMdcNs(serverCount: number, utilization: number): number {
  const load = serverCount * utilization;
  let term = 1;
  let sum = 1;
  for (let k = 1; k < serverCount; k++) {
    term *= load / k;
    sum += term;
  }
  const last = (term * load) / serverCount / (1 - utilization);
  const waitMmcNs = ((last / (sum + last)) * SERVICE_NS) / (serverCount * (1 - utilization));
  const correction =
    ((1 - utilization) * (serverCount - 1) * (Math.sqrt(4 + 5 * serverCount) - 2)) / (16 * utilization * serverCount);
  return 0.5 * waitMmcNs * (1 + correction);
}

test('work waits for compute units that share it as M/D/c says, within 5 %', () => {
  for (const unitCount of [1, 2, 4]) {
    for (const utilization of [0.6, 0.8, 0.9]) {
      const random = createSeededRandom(utilization * 100 + unitCount);
      const bytesPerSecond = (PAGE_BYTES / SERVICE_NS) * 1e9;
      const model = smallModel({ compute: { unitCount, bytesPerSecond } });
      const waitNs = meanWaitNs(random, (unitCount * utilization) / SERVICE_NS, (arrivalNs) =>
        latencyOf(model, arrivalNs, (job) => job.compute(PAGE_BYTES, 0)),
      );
      near(waitNs, waitMdcNs(unitCount, utilization), 0.05, `${unitCount} units at ${utilization}`);
    }
  }
});
