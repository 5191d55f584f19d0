/** Commands that make durable what others have done. */
import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { nvmOpcodes } from '../../spec/opcodes.ts';
import { BROADCAST_NSID } from '../../daemon/commands/namespace-ids.ts';
import type { Completion } from './host.ts';
import type { HostSession } from './host-session.ts';
import type { World } from './world.ts';

/** All that has completed by now is durable if the command succeeds. */
async function makeDurable(world: World, what: string, run: () => Promise<Completion>): Promise<void> {
  const { blocks, kv, ticks } = world;
  world.trace.explain(() => what);
  const troubles = world.troubles();
  const submitted = ticks.next();
  const scope = kv.scope();
  const completion = await run();
  if (world.outcome(completion, what, troubles) !== undefined) return;
  blocks.flushed(submitted);
  kv.flushed(scope);
}

/** Flush of one namespace covers both. */
export async function flush(world: World, session: HostSession): Promise<void> {
  const nsid = world.random.pick([BLOCK_NSID, KV_CACHE_NSID, BROADCAST_NSID]);
  await makeDurable(world, `Flush, NSID ${nsid}`, () => session.host.io.run({ opcode: nvmOpcodes.flush.opcode, nsid }));
}

export async function toggleWriteCache(world: World, session: HostSession): Promise<void> {
  const { random } = world;
  if (random.chance(0.6)) {
    await makeDurable(world, 'Set Features, write cache off', () => session.setWriteThrough(true));
    return;
  }
  const troubles = world.troubles();
  world.outcome(await session.setWriteThrough(false), 'Set Features, write cache on', troubles);
}
