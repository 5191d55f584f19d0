/** spec/discovery.md as rules: what a drive's own discovery controller takes, and a service that drives register with. */
import { isIP } from 'node:net';
import {
  adrfams,
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
import { commonRules } from './admin-rules.ts';
import type { CommandRule, RuleTable } from './rules.ts';

/** Of the service that is fuzzed: small enough to be filled. */
export const DISCOVERY_LIMITS = { discoveryEntryCountMax: 20, discoveryEntriesPerRegistrationMax: 4 } as const;

function isEntryRight(bytes: Uint8Array, at: number): boolean {
  const { trtype, adrfam, subtype, subnqn, traddr, trsvcid } = discoveryLogEntry.decode(bytes, at);
  const family = { 0: undefined, 4: adrfams.ipv4, 6: adrfams.ipv6 }[isIP(traddr) as 0 | 4 | 6];
  const port = /^[1-9]\d{0,4}$/.test(trsvcid) ? Number(trsvcid) : 0;
  return (
    discoveryLogEntry.firstNonZeroReserved(bytes, at) === undefined &&
    trtype === trtypes.tcp &&
    subtype === subtypes.nvm &&
    nqnProblem(subnqn) === undefined &&
    adrfam === family &&
    port > 0 &&
    port < 65_536
  );
}

const register: CommandRule = {
  uses: { cdw10: 0xf },
  wantsNoNamespace: true,
  judge({ submission, verdict, host, data }) {
    const { lengthBytes, entry } = submission;
    const task = entry.cdw10 & 0xf;
    if (task > dimTasks.update) verdict.fault('invalidField');
    if (lengthBytes < DISCOVERY_UNIT_BYTES) {
      verdict.fault('sglDataLength');
      return;
    }
    if (data === undefined) return;
    const { tdl, nument, entfmt, etype, eid } = dimHeader.decode(data);
    const isHeaderRight =
      dimHeader.firstNonZeroReserved(data) === undefined && tdl === data.length && nqnProblem(eid) === undefined;
    if (!isHeaderRight) verdict.fault('invalidDiscoveryInformation');
    // Hosts are known while they are connected, and nothing tells of them: what they register is not looked at.
    if (etype === dimEntities.host) return;
    const isOfDrive = etype === dimEntities.directDiscoveryController && entfmt === dimEntryFormats.basic;
    if (!isOfDrive) verdict.fault('invalidDiscoveryInformation');
    if (nument > DISCOVERY_LIMITS.discoveryEntriesPerRegistrationMax) verdict.fault('discoveryLimit');
    if (data.length !== DISCOVERY_UNIT_BYTES * (1 + nument)) verdict.fault('invalidDiscoveryInformation');
    for (let at = DISCOVERY_UNIT_BYTES; at + DISCOVERY_UNIT_BYTES <= data.length; at += DISCOVERY_UNIT_BYTES) {
      if (!isEntryRight(data, at)) verdict.fault('invalidDiscoveryInformation');
    }
    verdict.touch(`entity ${eid}`);
    verdict.isWriter = true;
    if (host.uncertainEntities.has(eid)) verdict.isUnsure = true;
    verdict.onUncertain = () => host.uncertainEntities.add(eid);
    if (task === dimTasks.deregister) {
      if (!host.entities.has(eid)) verdict.fault('invalidDiscoveryInformation');
      verdict.onSuccess = () => host.entities.delete(eid);
    } else {
      // Others may have filled it.
      verdict.excuseAlways('discoveryLimit');
      verdict.onSuccess = () => host.entities.add(eid);
    }
  },
};

export const discoveryRules: RuleTable = commonRules;
export const centralRules: RuleTable = {
  ...commonRules,
  [discoveryOpcodes.discoveryInformationManagement.opcode]: register,
};
