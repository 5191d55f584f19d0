import {
  driveStatistics,
  encodeEffectsLog,
  encodeFeatureEffects,
  encodeSupportedLogPages,
  firmwareSlotLog,
  getLogPageBits,
  getLogPageHighBits,
  getLogPageIndexBits,
  enduranceGroupLog,
  type LogPageName,
  logPageOf,
  logPages,
  smartLog,
} from '../../../spec/log-pages.ts';
import { encodeNamespaceList, ENDURANCE_GROUP_ID, NVM_CSI } from '../../../spec/identify.ts';
import { KV_CACHE_CSI } from '../../../spec/kv-commands.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes, type OpcodeRow } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import {
  type Association,
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandOptions,
  type CommandResult,
  type SubsystemIdentity,
  SUCCESS,
} from '../contract.ts';
import { ALL_BITS, checkLength, field, maskOf, refuse } from '../fields.ts';
import { BROADCAST_NSID } from '../namespace-ids.ts';
import { criticalWarning } from './health.ts';

const ACTIVE_SLOT = 1;
const changingNvm = new Set<number>([
  nvmOpcodes.write.opcode,
  nvmOpcodes.writeZeroes.opcode,
  nvmOpcodes.datasetManagement.opcode,
]);
const { create, append, fork, truncate, reclaim, attend, attendExchange } = kvOpcodes;
const changingKv = new Set<number>(
  [create, append, fork, truncate, reclaim, attend, attendExchange].map((row) => row.opcode),
);
const opcodesOf = (table: Readonly<Record<string, OpcodeRow>>): number[] =>
  Object.values(table).map((row) => row.opcode);

export function getLogPage(options: CommandOptions, modules: CommandModules): CommandDefinition {
  return {
    row: adminOpcodes.getLogPage,
    allowedBits: {
      cdw10: maskOf(getLogPageBits),
      cdw11: maskOf(getLogPageHighBits),
      cdw12: ALL_BITS,
      cdw13: ALL_BITS,
      cdw14: maskOf(getLogPageIndexBits),
    },
    namespace: 'any',
    run: (context) => read(context, options, modules),
  };
}

async function read(context: CommandContext, options: CommandOptions, modules: CommandModules): Promise<CommandResult> {
  const { entry, data } = context;
  const lid = field(entry.cdw10, getLogPageBits.lid);
  const name = logPageOf(lid);
  if (name === undefined) throw new DriveError('invalidLogPage', `log page ${lid}`);
  checkParameters(context, name);
  const dwords = field(entry.cdw11, getLogPageHighBits.numdu) * 0x1_0000 + field(entry.cdw10, getLogPageBits.numdl) + 1;
  const lengthBytes = dwords * 4;
  if (lengthBytes > options.limits.transferBytesMax) {
    throw refuse(`${lengthBytes} bytes, allowed: up to ${options.limits.transferBytesMax}`);
  }
  checkLength(data, lengthBytes);
  const offset = entry.cdw13 * 0x1_0000_0000 + entry.cdw12;
  const { sizeBytes } = logPages[name];
  if (offset % 4 !== 0 || offset > sizeBytes)
    throw refuse(`offset ${offset}, allowed: multiples of 4 up to ${sizeBytes}`);
  const retain = field(entry.cdw10, getLogPageBits.rae) === 1;
  const page = build(name, field(entry.cdw14, getLogPageIndexBits.csi), retain, context.association, options, modules);
  if (!retain) context.association.events.logPageRead(lid);
  const target = new Uint8Array(lengthBytes);
  target.set(page.subarray(offset, offset + lengthBytes));
  await data.write(target);
  return SUCCESS;
}

function checkParameters({ entry }: CommandContext, name: LogPageName): void {
  const { cdw10, cdw11, cdw14, namespaceId } = entry;
  if (field(cdw10, getLogPageBits.lsp) !== 0) throw refuse('no log page of this drive has a specific parameter');
  const identifier = field(cdw11, getLogPageHighBits.lsi);
  if (name === 'enduranceGroup' && identifier !== ENDURANCE_GROUP_ID) {
    throw refuse(`endurance group ${identifier}, allowed: ${ENDURANCE_GROUP_ID}`);
  }
  if (name !== 'enduranceGroup' && identifier !== 0) throw refuse(`${logPages[name].name} has no specific identifier`);
  if (field(cdw14, getLogPageIndexBits.uuidIndex) !== 0) throw refuse('UUID index: the drive has no UUID list');
  if (field(cdw14, getLogPageIndexBits.ot) !== 0) throw refuse('no log page of this drive takes an index as offset');
  const csi = field(cdw14, getLogPageIndexBits.csi);
  // The effects log of a command set that the drive lacks has its admin commands and no others: hosts ask for more sets
  // than one at once.
  if (name !== 'effects' && csi !== 0) {
    throw new DriveError('invalidCommandSet', `CSI ${csi} for log page ${logPages[name].lid}`);
  }
  // LPA bit 0 is 0: logs are of the whole controller.
  if (namespaceId !== 0 && namespaceId !== BROADCAST_NSID) {
    throw new DriveError('invalidNamespace', `log pages are not kept by namespace; NSID ${namespaceId}`);
  }
}

function build(
  name: LogPageName,
  csi: number,
  retain: boolean,
  association: Association,
  { identity }: CommandOptions,
  modules: CommandModules,
): Uint8Array {
  const { status } = modules;
  switch (name) {
    case 'supported':
      return encodeSupportedLogPages();
    case 'error':
      return association.errors.page();
    case 'smart': {
      const health = status.health();
      const numErrLogEntries = association.errors.count;
      return smartLog.encode({
        ...health,
        criticalWarning: criticalWarning(health, association.features),
        numErrLogEntries,
      });
    }
    case 'enduranceGroup':
      return enduranceGroupLog.encode(status.endurance());
    case 'firmwareSlot':
      return firmwareSlotLog.encode({ afi: ACTIVE_SLOT, frs1: identity.firmware });
    case 'changedNamespaces':
      return encodeNamespaceList(association.changedNamespaces(!retain));
    case 'featureEffects':
      return encodeFeatureEffects();
    case 'effects':
      if (csi === KV_CACHE_CSI) return encodeEffectsLog(opcodesOf(adminOpcodes), opcodesOf(kvOpcodes), changingKv);
      return encodeEffectsLog(opcodesOf(adminOpcodes), csi === NVM_CSI ? opcodesOf(nvmOpcodes) : [], changingNvm);
    case 'driveStatistics':
      return statisticsPage(identity, modules);
  }
}

function statisticsPage(identity: SubsystemIdentity, modules: CommandModules): Uint8Array {
  const front = modules.frontCounters();
  return driveStatistics.encode({
    version: 1,
    pageSizeBytes: identity.pageSizeBytes,
    kernelSet: identity.kernelSet,
    kernelIsa: identity.kernelIsa,
    linkReceivedBytes: front.linkReceivedBytes,
    linkSentBytes: front.linkSentBytes,
    regionReadBytes: front.regionReadBytes,
    regionWrittenBytes: front.regionWrittenBytes,
    blockReadBytes: front.blockReadBytes,
    blockWrittenBytes: front.blockWrittenBytes,
    kvAppendedBytes: front.kvAppendedBytes,
    kvReadBackBytes: front.kvReadBackBytes,
    attendCommands: front.attendCommands,
    attendEntries: front.attendEntries,
    attendFlashTokens: front.attendFlashTokens,
    attendBufferedTokens: front.attendBufferedTokens,
    commandsFailed: front.commandsFailed,
    ...modules.status.statistics(),
  });
}
