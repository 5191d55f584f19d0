import {
  cnsValues,
  encodeCommandSets,
  encodeEnduranceGroupList,
  encodeNamespaceDescriptors,
  encodeNamespaceList,
  ENDURANCE_GROUP_ID,
  IDENTIFY_BYTES,
  identifyBits,
  identifyCommandSetBits,
  independentNamespace,
  NVM_CSI,
  nvmController,
  nvmNamespace,
} from '../../../spec/identify.ts';
import { KV_CACHE_CSI } from '../../../spec/kv-commands.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandModules,
  type CommandOptions,
  type CommandResult,
  SUCCESS,
} from '../contract.ts';
import { checkLength, field, maskOf, refuse } from '../fields.ts';
import { BROADCAST_NSID, commandSetIds, csiOf, namespaces } from '../namespace-ids.ts';
import {
  blockNamespaceData,
  controllerData,
  kvControllerData,
  kvNamespaceData,
  namespaceUuid,
} from './identify-data.ts';

/** All CNS values of spec/identify.ts; every answer is 4096 bytes. */
export function identify(options: CommandOptions, modules: CommandModules): CommandDefinition {
  return {
    row: adminOpcodes.identify,
    allowedBits: { cdw10: maskOf(identifyBits), cdw11: maskOf(identifyCommandSetBits), cdw14: 0x7f },
    namespace: 'any',
    run: async (context): Promise<CommandResult> => {
      checkLength(context.data, IDENTIFY_BYTES);
      await context.data.write(answer(context, options, modules));
      return SUCCESS;
    },
  };
}

function answer(context: CommandContext, options: CommandOptions, modules: CommandModules): Uint8Array {
  const { cdw10, cdw11, cdw14, namespaceId } = context.entry;
  const cns = field(cdw10, identifyBits.cns);
  const csi = field(cdw11, identifyCommandSetBits.csi);
  if (field(cdw10, identifyBits.cntid) !== 0) throw refuse('CNTID is used by no CNS of this drive');
  const cnssid = field(cdw11, identifyCommandSetBits.cnssid);
  if (cnssid !== 0 && cns !== cnsValues.enduranceGroups.cns) throw refuse(`CNSSID ${cnssid} is not used by CNS ${cns}`);
  if (cdw14 !== 0) throw refuse('UUID index: the drive has no UUID list');
  switch (cns) {
    case cnsValues.namespace.cns:
      // Of all namespaces: what they have in common. That is the LBA format, which a real block namespace shows too.
      if (namespaceId === BROADCAST_NSID || commandSetOf(namespaceId) === NVM_CSI) {
        return blockNamespaceData(options, modules);
      }
      throw new DriveError('invalidCommandSet', `namespace ${namespaceId} is not of the NVM command set`);
    case cnsValues.controller.cns:
      return controllerData(context.association.controllerId, options, modules);
    case cnsValues.activeNamespaces.cns:
      return encodeNamespaceList(idsAbove(namespaceId));
    case cnsValues.namespaceDescriptors.cns: {
      const uuid = namespaceUuid(options.identity.uuid, namespaceId);
      return encodeNamespaceDescriptors({ nguid: uuid, uuid, csi: commandSetOf(namespaceId) });
    }
    case cnsValues.commandSetNamespace.cns:
      return ofCommandSet(csi, namespaceId, options, modules);
    case cnsValues.commandSetController.cns:
      if (csi === NVM_CSI) return nvmController.encode({});
      if (csi === KV_CACHE_CSI) return kvControllerData(options);
      throw new DriveError('invalidCommandSet', `CSI ${csi}, supported: ${commandSetIds.join(', ')}`);
    case cnsValues.commandSetActiveNamespaces.cns:
      if (!commandSetIds.includes(csi)) throw new DriveError('invalidCommandSet', `CSI ${csi}`);
      return encodeNamespaceList(idsAbove(namespaceId).filter((nsid) => csiOf(nsid) === csi));
    case cnsValues.independentNamespace.cns:
      commandSetOf(namespaceId);
      return independentNamespace.encode({
        nmic: 1,
        nsattr: modules.status.isReadOnly() ? 1 : 0,
        endgid: ENDURANCE_GROUP_ID,
        nstat: 1,
      });
    case cnsValues.enduranceGroups.cns:
      return encodeEnduranceGroupList(cnssid <= ENDURANCE_GROUP_ID ? [ENDURANCE_GROUP_ID] : []);
    case cnsValues.commandSets.cns:
      return encodeCommandSets(commandSetIds);
    default:
      throw refuse(`CNS ${cns}`);
  }
}

function ofCommandSet(csi: number, namespaceId: number, options: CommandOptions, modules: CommandModules): Uint8Array {
  if (commandSetOf(namespaceId) !== csi) {
    throw new DriveError('invalidCommandSet', `CSI ${csi} of namespace ${namespaceId}`);
  }
  return csi === KV_CACHE_CSI ? kvNamespaceData(options, modules) : nvmNamespace.encode({});
}

function commandSetOf(namespaceId: number): number {
  const csi = csiOf(namespaceId);
  if (csi === undefined) {
    const known = namespaces.map(({ nsid }) => nsid).join(', ');
    throw new DriveError('invalidNamespace', `namespace ${namespaceId}, there are ${known}`);
  }
  return csi;
}

/** FFFFFFFEh and FFFFFFFFh are no namespaces to start from. */
function idsAbove(namespaceId: number): number[] {
  if (namespaceId >= BROADCAST_NSID - 1)
    throw new DriveError('invalidNamespace', `list after namespace ${namespaceId}`);
  return namespaces.map(({ nsid }) => nsid).filter((nsid) => nsid > namespaceId);
}
