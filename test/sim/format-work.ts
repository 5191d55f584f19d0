/** Format NVM: namespaces that are emptied, and what must be left of what they held. */
import assert from 'node:assert/strict';
import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { adminOpcodes, formatBits, secureErase } from '../../spec/opcodes.ts';
import { BROADCAST_NSID } from '../../daemon/commands/namespace-ids.ts';
import type { HostSession } from './host-session.ts';
import { listSequences } from './kv-work.ts';
import type { FormattedSequences } from './kv-model.ts';
import type { Completion } from './host.ts';
import type { World } from './world.ts';

/** While it goes on others submit commands, which are refused or come after it. */
export async function formatNamespaces(world: World, session: HostSession): Promise<void> {
  const { blocks, kv, random } = world;
  const nsid = random.pick([BLOCK_NSID, KV_CACHE_NSID, BROADCAST_NSID]);
  const erases = random.chance(0.3);
  // What was on its way could be told neither from what is lost nor from what comes later.
  if (world.isFormatting || !(await world.pause()) || world.isFormatting || !session.host.isOpen) return;
  world.trace.explain(() => `format namespace ${nsid}${erases ? ', erasing user data' : ''}`);
  const isOfBlocks = nsid !== KV_CACHE_NSID;
  const isOfKv = nsid !== BLOCK_NSID;
  const troubles = world.troubles();
  const writes = isOfBlocks ? blocks.submitZeros(0, blocks.lbaCount) : [];
  const sequences = isOfKv ? kv.format() : undefined;
  const { erased, stores, drive } = world;
  const holdings = {
    versionMax: isOfBlocks ? blocks.lastVersion : 0,
    kvPages: isOfKv && erases ? erased.kvPagesOf(stores, drive.ftl.flash.superblocks) : [],
  };
  world.isFormatting = true;
  const { opcode } = adminOpcodes.formatNvm;
  const ses = erases ? secureErase.userData : secureErase.none;
  const completion = await session.host.admin.run({ opcode, nsid, cdw10: ses << formatBits.ses.shift });
  const error = world.outcome(completion, 'Format NVM', troubles);
  if (error === 'lost') return;
  world.isFormatting = false;
  if (isOfBlocks && error === undefined) blocks.succeed(0, writes, true);
  else blocks.fail(writes);
  if (sequences) await settle(world, session, sequences, error);
  if (error !== undefined || !erases) return;
  erased.add(holdings);
  erased.check(stores);
}

/** After a failure the drive has to say whether sequences have ended. */
async function settle(
  world: World,
  session: HostSession,
  sequences: FormattedSequences,
  error: Completion['error'],
): Promise<void> {
  const { kv, ticks } = world;
  if (error === undefined) {
    kv.formatted(sequences);
    return;
  }
  const ids = await listSequences(world, session);
  if (ids === undefined) return;
  // Of those whose lease has ended, or whose id nobody knows, it says nothing.
  const told = sequences.ended.filter(({ isBorn, leaseSeconds }) => isBorn && leaseSeconds === 0);
  if (told.length === 0) return;
  const isDone = !ids.includes(told[0]!.id);
  for (const sequence of told) assert.equal(!ids.includes(sequence.id), isDone, 'Format NVM is done in part');
  const completed = ticks.next();
  for (const sequence of sequences.ended) {
    if (isDone) sequence.operations.at(-1)!.completed = completed;
    else sequence.undo(sequence.operations.at(-1)!);
  }
}
