import {
  driveStatistics,
  encodeEffectsLog,
  encodeFeatureEffects,
  encodeSupportedLogPages,
  firmwareSlotLog,
  enduranceGroupLog,
  type LogPageName,
  logPages,
  smartLog,
} from '../../../spec/log-pages.ts';
import { encodeNamespaceList, ENDURANCE_GROUP_ID, NVM_CSI } from '../../../spec/identify.ts';
import { KV_CACHE_CSI } from '../../../spec/kv-commands.ts';
import { adminOpcodes, kvOpcodes, nvmOpcodes, type OpcodeRow } from '../../../spec/opcodes.ts';
import type {
  Association,
  CommandDefinition,
  CommandModules,
  CommandOptions,
  DriveStatus,
  SubsystemIdentity,
} from '../contract.ts';
import { criticalWarning } from './health.ts';
import { getLogPageOf, type LogPage } from './log-page-reader.ts';

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
const changingAdmin = new Set<number>([adminOpcodes.formatNvm.opcode]);
const opcodesOf = (table: Readonly<Record<string, OpcodeRow>>): number[] =>
  Object.values(table).map((row) => row.opcode);

/** The log pages of an I/O controller. */
export function getLogPage(options: CommandOptions, modules: CommandModules): CommandDefinition {
  const pages = new Map<number, LogPage>(
    Object.entries(builders(options, modules)).map(([name, build]) => [
      logPages[name as LogPageName].lid,
      {
        hasCommandSets: name === 'effects',
        specificIdentifier: name === 'enduranceGroup' ? ENDURANCE_GROUP_ID : 0,
        build,
      },
    ]),
  );
  return getLogPageOf({ limits: options.limits, pages });
}

function builders(
  { identity }: CommandOptions,
  modules: CommandModules,
): Readonly<Record<LogPageName, LogPage['build']>> {
  return {
    supported: () => encodeSupportedLogPages(),
    error: ({ errors }) => errors.page(),
    smart: (association) => smartPage(modules.status.health(), association),
    enduranceGroup: () => enduranceGroupLog.encode(modules.status.endurance()),
    firmwareSlot: () => firmwareSlotLog.encode({ afi: ACTIVE_SLOT, frs1: identity.firmware }),
    changedNamespaces: (association) => encodeNamespaceList(association.changedNamespaces()),
    featureEffects: () => encodeFeatureEffects(),
    effects: (_, csi) => effectsPage(csi),
    driveStatistics: () => statisticsPage(identity, modules),
  };
}

function smartPage(health: ReturnType<DriveStatus['health']>, { errors, features }: Association): Uint8Array {
  return smartLog.encode({
    ...health,
    criticalWarning: criticalWarning(health, features),
    numErrLogEntries: errors.count,
  });
}

/** Of a command set that the drive lacks: its admin commands and no others, since hosts ask for more sets than one. */
function effectsPage(csi: number): Uint8Array {
  const admin = opcodesOf(adminOpcodes);
  if (csi === KV_CACHE_CSI) {
    return encodeEffectsLog(admin, opcodesOf(kvOpcodes), { admin: changingAdmin, io: changingKv });
  }
  const io = csi === NVM_CSI ? opcodesOf(nvmOpcodes) : [];
  return encodeEffectsLog(admin, io, { admin: changingAdmin, io: changingNvm });
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
