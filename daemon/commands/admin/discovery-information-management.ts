import { isIP } from 'node:net';
import {
  adrfams,
  dimBits,
  dimEntities,
  dimEntryFormats,
  dimHeader,
  dimTasks,
  DISCOVERY_UNIT_BYTES,
  discoveryLogEntry,
  subtypes,
  trtypes,
} from '../../../spec/discovery.ts';
import { nqnProblem } from '../../../spec/fabrics.ts';
import { discoveryOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type DiscoveryOptions,
  type CommandResult,
  type DiscoveryRecord,
  type DiscoveryRegistrations,
  SUCCESS,
} from '../contract.ts';
import { checkLength, field, maskOf, refuse } from '../fields.ts';

const PORT_MAX = 65_535;

/**
 * CDW10: task. Drives (direct discovery controllers) register where they are; that lasts until they take it back, or until
 * this association ends. Hosts may register too: they are known while connected, and nothing tells of them.
 */
export const discoveryInformationManagement = (
  options: DiscoveryOptions,
  registrations: DiscoveryRegistrations,
): CommandDefinition => ({
  row: discoveryOpcodes.discoveryInformationManagement,
  allowedBits: { cdw10: maskOf(dimBits) },
  namespace: 'none',
  run: (context) => manage(context, options, registrations),
});

async function manage(
  { entry, data, association, signal }: CommandContext,
  { limits }: DiscoveryOptions,
  registrations: DiscoveryRegistrations,
): Promise<CommandResult> {
  const task = field(entry.cdw10, dimBits.tas);
  if (task > dimTasks.update) throw refuse(`task ${task}, allowed: 0 to ${dimTasks.update}`);
  if (data.lengthBytes < DISCOVERY_UNIT_BYTES) checkLength(data, DISCOVERY_UNIT_BYTES);
  const bytes = new Uint8Array(data.lengthBytes);
  await data.read(bytes);
  const { eid, etype, records } = parseRegistration(bytes, limits.discoveryEntriesPerRegistrationMax);
  if (etype === dimEntities.host) return SUCCESS;
  if (task === dimTasks.deregister) {
    if (!registrations.deregister(association, eid)) throw invalid(`${eid} has registered nothing here`);
    return SUCCESS;
  }
  if (registrations.register(association, eid, records)) {
    signal.addEventListener('abort', () => registrations.ended(association), { once: true });
  }
  return SUCCESS;
}

interface Registration {
  readonly eid: string;
  readonly etype: number;
  readonly records: readonly DiscoveryRecord[];
}

/** DriveError invalidDiscoveryInformation. */
export function parseRegistration(bytes: Uint8Array, entryCountMax: number): Registration {
  const { tdl, nument, entfmt, etype, eid } = dimHeader.decode(bytes);
  const stray = dimHeader.firstNonZeroReserved(bytes);
  if (stray !== undefined) throw invalid(`reserved byte ${stray}`);
  if (tdl !== bytes.length) throw invalid(`TDL ${tdl}, the data has ${bytes.length} bytes`);
  if (nqnProblem(eid) !== undefined) throw invalid(`entity identifier: ${nqnProblem(eid)}`);
  if (etype === dimEntities.host) return { eid, etype, records: [] };
  const { basic } = dimEntryFormats;
  if (etype !== dimEntities.directDiscoveryController) throw invalid(`entity type ${etype}, allowed: 1, 2`);
  if (entfmt !== basic) throw invalid(`entry format ${entfmt}, allowed: ${basic}`);
  if (nument > entryCountMax) throw new DriveError('discoveryLimit', `${nument} entries, allowed: ${entryCountMax}`);
  if (bytes.length !== DISCOVERY_UNIT_BYTES * (1 + nument))
    throw invalid(`${bytes.length} bytes for ${nument} entries`);
  const records = Array.from({ length: nument }, (_, i) => parseEntry(bytes, DISCOVERY_UNIT_BYTES * (1 + i)));
  return { eid, etype, records };
}

function parseEntry(bytes: Uint8Array, at: number): DiscoveryRecord {
  const { trtype, adrfam, subtype, subnqn, traddr, trsvcid } = discoveryLogEntry.decode(bytes, at);
  const stray = discoveryLogEntry.firstNonZeroReserved(bytes, at);
  if (stray !== undefined) throw invalid(`reserved byte ${stray} of an entry`);
  if (trtype !== trtypes.tcp) throw invalid(`transport type ${trtype}, allowed: ${trtypes.tcp}`);
  if (subtype !== subtypes.nvm) throw invalid(`subsystem type ${subtype}, allowed: ${subtypes.nvm}`);
  if (nqnProblem(subnqn) !== undefined) throw invalid(`subsystem NQN: ${nqnProblem(subnqn)}`);
  const version = isIP(traddr);
  if (version === 0 || adrfam !== (version === 6 ? adrfams.ipv6 : adrfams.ipv4)) {
    throw invalid(`address ${JSON.stringify(traddr)} of family ${adrfam}, allowed: an IPv4 (1) or IPv6 (2) address`);
  }
  const port = /^[1-9]\d{0,4}$/.test(trsvcid) ? Number(trsvcid) : 0;
  if (port === 0 || port > PORT_MAX) throw invalid(`port ${JSON.stringify(trsvcid)}, allowed: 1 to ${PORT_MAX}`);
  return { subtype: 'nvm', nqn: subnqn, address: { host: traddr, port } };
}

const invalid = (detail: string): DriveError => new DriveError('invalidDiscoveryInformation', detail);
