import { BLOCK_NSID, KV_CACHE_NSID } from '../../../spec/kv-commands.ts';
import { adminOpcodes, formatBits, secureErase } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandResult,
  SUCCESS,
} from '../contract.ts';
import { field, maskOf, refuse } from '../fields.ts';
import { BROADCAST_NSID, csiOf, namespaces } from '../namespace-ids.ts';

/**
 * Empties namespaces: blocks read as zeros, sequences are reclaimed, ids are not used again. Durable when it completes;
 * after a crash before that each namespace is whole: as it was, or empty. With user data erase the bytes are gone from the
 * media too; only then does it complete.
 */
export const formatNvm = (modules: CommandModules): CommandDefinition => ({
  row: adminOpcodes.formatNvm,
  allowedBits: { cdw10: maskOf(formatBits) },
  namespace: 'any',
  run: (context) => format(context, modules),
});

async function format({ entry, association }: CommandContext, modules: CommandModules): Promise<CommandResult> {
  const ses = field(entry.cdw10, formatBits.ses);
  checkFormat(entry.cdw10, ses);
  const namespaceIds = namespacesOf(entry.namespaceId);
  if (association.isConfined && namespaceIds.includes(KV_CACHE_NSID)) {
    throw new DriveError('operationDenied', 'the namespace holds what other hosts own; reclaim sequences one by one');
  }
  const opened: (() => void)[] = [];
  try {
    for (const namespaceId of namespaceIds) {
      const gate = modules.gates.get(namespaceId)!;
      await gate.close();
      opened.push(() => gate.open());
    }
    await empty(namespaceIds, ses === secureErase.userData, modules);
  } finally {
    for (const open of opened) open();
  }
  for (const namespaceId of namespaceIds) modules.namespaceChanged(namespaceId, association);
  return SUCCESS;
}

function checkFormat(cdw10: number, ses: number): void {
  for (const name of ['lbafl', 'lbafu', 'mset', 'pi', 'pil'] as const) {
    const value = field(cdw10, formatBits[name]);
    if (value !== 0) throw new DriveError('invalidFormat', `${name} ${value}, allowed: 0`);
  }
  const isKnown = ses === secureErase.none || ses === secureErase.userData;
  if (!isKnown) throw refuse(`secure erase setting ${ses}, allowed: 0 (none), 1 (user data)`);
}

function namespacesOf(namespaceId: number): number[] {
  if (namespaceId === BROADCAST_NSID) return namespaces.map(({ nsid }) => nsid);
  if (csiOf(namespaceId) !== undefined) return [namespaceId];
  const known = namespaces.map(({ nsid }) => nsid).join(', ');
  throw new DriveError('invalidNamespace', `namespace ${namespaceId}, there are ${known} and FFFFFFFFh for all`);
}

async function empty(namespaceIds: readonly number[], erases: boolean, modules: CommandModules): Promise<void> {
  const { blocks, kv, durability, userData } = modules;
  for (const namespaceId of namespaceIds) {
    if (namespaceId === BLOCK_NSID) blocks.clear();
    else await kv.clear();
  }
  await durability.flush();
  if (erases) await userData.erase(namespaceIds.map((namespaceId) => (namespaceId === BLOCK_NSID ? 'block' : 'kv')));
}
