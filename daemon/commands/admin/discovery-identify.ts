import { packBits } from '../../../spec/bits.ts';
import { discoveryControllerTypes } from '../../../spec/discovery.ts';
import { DISCOVERY_NQN, NVME_VERSION } from '../../../spec/fabrics.ts';
import {
  cnsValues,
  controllerAttributeBits,
  IDENTIFY_BYTES,
  identifyBits,
  identifyController,
  sglSupportBits,
} from '../../../spec/identify.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type DiscoveryOptions,
  type CommandResult,
  type DiscoverySource,
  SUCCESS,
} from '../contract.ts';
import { checkLength, field, maskOf, refuse } from '../fields.ts';
import { EXTENDED_LOG_PAGES, KEEP_ALIVE_UNITS, SUPPORTED_LOG_PAGES } from './identify-data.ts';

const CONTROLLER_TYPE_DISCOVERY = 2;
const DISCOVERY_LOG_NOTICES = 2 ** 31;

/** Identify of a discovery controller: CNS 01h only, since it has no namespaces. */
export const discoveryIdentify = (options: DiscoveryOptions, source: DiscoverySource): CommandDefinition => ({
  row: adminOpcodes.identify,
  allowedBits: { cdw10: maskOf(identifyBits) },
  namespace: 'any',
  run: (context) => identify(context, options, source),
});

async function identify(
  { entry, data, association }: CommandContext,
  options: DiscoveryOptions,
  source: DiscoverySource,
): Promise<CommandResult> {
  const cns = field(entry.cdw10, identifyBits.cns);
  if (cns !== cnsValues.controller.cns) throw refuse(`CNS ${cns} of a discovery controller, allowed: 1`);
  if (field(entry.cdw10, identifyBits.cntid) !== 0) throw refuse('CNTID is used by no CNS');
  checkLength(data, IDENTIFY_BYTES);
  await data.write(controllerData(association.controllerId, options, source));
  return SUCCESS;
}

function controllerData(
  controllerId: number,
  { identity, limits }: DiscoveryOptions,
  { registrations }: DiscoverySource,
): Uint8Array {
  const { direct, central } = discoveryControllerTypes;
  return identifyController.encode({
    sn: identity.serial,
    mn: identity.model,
    fr: identity.firmware,
    mdts: limits.mdtsExponent,
    cntlid: controllerId,
    ver: NVME_VERSION,
    oaes: DISCOVERY_LOG_NOTICES,
    ctratt: packBits(controllerAttributeBits, { hostId128: 1, trafficBasedKeepAlive: 1 }),
    cntrltype: CONTROLLER_TYPE_DISCOVERY,
    aerl: limits.asyncEventRequestCountMax - 1,
    lpa: EXTENDED_LOG_PAGES | SUPPORTED_LOG_PAGES,
    elpe: limits.errorLogEntryCountMax - 1,
    kas: KEEP_ALIVE_UNITS,
    maxcmd: limits.queueEntriesMax,
    sgls: packBits(sglSupportBits, { supported: 1, address: 1 }),
    subnqn: DISCOVERY_NQN,
    dctype: registrations === undefined ? direct : central,
  });
}
