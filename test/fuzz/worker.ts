// A process that plays sessions for campaign.ts.
import { CoverageProbe } from './coverage.ts';
import type { Answer, Order } from './campaign.ts';

const SHRINK_PLAYS_MAX = 400;

const probe = process.argv.includes('--coverage') ? new CoverageProbe() : undefined;
await probe?.start();
// Behind the probe, so that what runs when a module is loaded counts too.
const { playSession } = await import('./player.ts');
const { targetNamed } = await import('./registry.ts');

const send = (answer: Answer): void => void process.send?.(answer);

/** What is left after a collection of garbage. */
function memoryBytes(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

async function obey(order: Order): Promise<void> {
  switch (order.do) {
    case 'session': {
      const { target, seed, casesMax, bug } = order;
      const shrinkPlaysMax = SHRINK_PLAYS_MAX;
      const outcome = await playSession(targetNamed(target), { seed: BigInt(seed), casesMax, bug, shrinkPlaysMax });
      send({ kind: 'outcome', outcome, memoryBytes: order.wantsMemory ? memoryBytes() : undefined });
      return;
    }
    case 'end':
      send({ kind: 'coverage', scripts: (await probe?.take()) ?? [] });
  }
}

process.on('message', (order: Order) => void obey(order));
// Nobody is left to play for.
process.on('disconnect', () => process.exit());
