/** Tasks that work on a drive, each doing one thing after another, chosen by weight. */
import type { HostModules } from './host.ts';
import type { HostSession } from './host-session.ts';
import { attend } from './attend-work.ts';
import { compareBlocks, deallocateBlocks, readBlocks, writeBlocks, writeZeroes } from './block-work.ts';
import { formatNamespaces } from './format-work.ts';
import { flush, toggleWriteCache } from './flush-work.ts';
import {
  appendAgain,
  appendTokens,
  appendWrongly,
  createSequence,
  forkSequence,
  querySequence,
  readBack,
  reclaimSequence,
  truncateSequence,
} from './kv-work.ts';
import type { WorkKind } from './options.ts';
import type { World } from './world.ts';

type Work = (world: World, session: HostSession) => Promise<void>;

const works: Readonly<Record<WorkKind, Work>> = {
  blockWrite: writeBlocks,
  blockRead: readBlocks,
  blockCompare: compareBlocks,
  blockZeroes: writeZeroes,
  blockDeallocate: deallocateBlocks,
  flush,
  format: formatNamespaces,
  create: createSequence,
  append: appendTokens,
  appendAgain,
  appendWrong: appendWrongly,
  attend,
  readBack,
  query: querySequence,
  fork: forkSequence,
  truncate: truncateSequence,
  reclaim: reclaimSequence,
  toggleWriteCache,
  disconnect: async (world, session) => session.renew(world.drive.subsystem, hostModulesOf(world)),
  sleep: async (world) => sleep(world),
  audit: async (world) => world.pauseAndAudit(),
};

/** Who does these has nothing in flight, or waits until nobody has. */
const waiting: readonly WorkKind[] = ['sleep', 'audit', 'format'];

export const hostModulesOf = ({ loop, random, trace, options }: World): HostModules => ({
  loop,
  random,
  trace,
  isHeld: options.timing === 'enforce',
});

const RECONNECT_NS = 10_000;
const LONGEST_SLEEP_SECONDS = 12;

/** Nobody works for a while; the drive's own timers do. */
async function sleep(world: World): Promise<void> {
  const { random, loop, machine } = world;
  const ns = random.pick([0.01, 0.3, 1, LONGEST_SLEEP_SECONDS]) * 1e9;
  world.resumeAtNs = Math.max(world.resumeAtNs, world.nowNs + ns);
  await loop.wait(ns);
  if (!machine.isOn) return;
  // Somebody sets the wall clock, and not always forward.
  if (random.chance(0.2)) loop.shiftWallClock(random.between(-3, 3) * 3_600_000);
}

/** Works until the run is to end. Fails with what the drive did wrong. */
export async function workOn(world: World, session: HostSession): Promise<void> {
  const { random, options, loop } = world;
  while (!world.isEnding) {
    if (!session.host.isOpen) {
      await loop.wait(RECONNECT_NS);
      continue;
    }
    const kind = random.weighted(options.work);
    const isBusy = !waiting.includes(kind);
    world.busyCount += Number(isBusy);
    await works[kind](world, session);
    world.busyCount -= Number(isBusy);
    await loop.wait(options.thinkNs === 0 ? 100 : random.below(options.thinkNs));
    while (world.nowNs < world.resumeAtNs) await loop.wait(world.resumeAtNs - world.nowNs);
  }
}
