import {
  commandSetProfileBits,
  type FeatureName,
  features as featureTable,
  hostBehaviorData,
  numberOfQueuesBits,
  powerManagementBits,
  setFeaturesBits,
  temperatureThresholdBits,
  timestampData,
} from '../../../spec/features.ts';
import { strayBits } from '../../../spec/bits.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import type { Durability } from '../../ftl/contract.ts';
import {
  type CommandContext,
  type CommandDefinition,
  type CommandResult,
  type ControllerFeatures,
  SUCCESS,
} from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { ALL_BITS, checkLength, field, maskOf, refuse } from '../fields.ts';
import { BROADCAST_NSID } from '../namespace-ids.ts';
import { queueCountWord } from './get-features.ts';
import { type FeatureOptions, supportedFeature } from './supported-features.ts';

const COUNT_INVALID = 0xffff;
const COMPOSITE_SENSOR = 0;
const ALL_SENSORS = 0xf;
const THRESHOLD_KINDS = 2;
const TIMESTAMP_BYTES = 6;

/**
 * CDW11 is the value; what else a feature allows in it is checked here, feature by feature. A controller without namespaces
 * has no `durability`.
 */
export const setFeatures = (options: FeatureOptions, durability?: Durability): CommandDefinition => ({
  row: adminOpcodes.setFeatures,
  allowedBits: { cdw10: maskOf(setFeaturesBits), cdw11: ALL_BITS },
  namespace: 'any',
  run: async (context) => {
    const result = await setFeature(context, options);
    // With the write cache off nothing that has completed is only in memory, from this completion on.
    if (durability !== undefined) await settleDurability(context, durability);
    return result;
  },
});

async function setFeature(context: CommandContext, options: FeatureOptions): Promise<CommandResult> {
  const { entry, data, association } = context;
  const { cdw10, cdw11, namespaceId } = entry;
  const name = supportedFeature(field(cdw10, setFeaturesBits.fid), options);
  if (field(cdw10, setFeaturesBits.save) === 1) throw new DriveError('featureNotSaveable', name);
  const { changeable, bits, dataBytes } = featureTable[name];
  // The host identifier of an association is that of its Connect.
  if (name === 'hostIdentifier') throw new DriveError('commandSequence', 'Connect has set the host identifier');
  if (!changeable) throw new DriveError('featureNotChangeable', name);
  if (namespaceId !== 0 && namespaceId !== BROADCAST_NSID) throw new DriveError('featureNotNamespaceSpecific', name);
  if (strayBits(bits, cdw11) !== 0) throw refuse(`${name} ${cdw11}`);
  checkLength(data, dataBytes);
  const bytes = new Uint8Array(dataBytes);
  await data.read(bytes);
  const result = apply(name, cdw11, bytes, association.features, options);
  association.settingsChanged();
  return result;
}

function apply(
  name: FeatureName,
  value: number,
  bytes: Uint8Array,
  current: ControllerFeatures,
  options: FeatureOptions,
): CommandResult {
  switch (name) {
    case 'powerManagement':
      if (field(value, powerManagementBits.powerState) !== 0) throw refuse('power state, allowed: 0');
      break;
    case 'asyncEventConfiguration':
      if ((value & ~options.asyncEventMask) !== 0) throw refuse(`events ${value}, allowed: ${options.asyncEventMask}`);
      break;
    case 'commandSetProfile':
      if (field(value, commandSetProfileBits.combination) !== 0) {
        throw new DriveError('commandSetRejected', `combination ${value}, allowed: 0`);
      }
      break;
    case 'temperatureThreshold':
      setThreshold(value, current);
      return SUCCESS;
    case 'numberOfQueues':
      return grantQueues(value, current);
    case 'keepAliveTimer':
      current.setKeepAliveTimeoutMs(value);
      return SUCCESS;
    case 'timestamp':
      current.setTimestamp(Buffer.from(timestampData.decode(bytes).milliseconds).readUIntLE(0, TIMESTAMP_BYTES));
      return SUCCESS;
    case 'hostBehavior':
      setBehavior(bytes, current);
      return SUCCESS;
    case 'hostIdentifier':
      return SUCCESS;
    case 'arbitration':
    case 'errorRecovery':
    case 'volatileWriteCache':
    case 'writeAtomicity':
      break;
  }
  current.numbers[name] = value;
  return SUCCESS;
}

/** The drive grants all it has, whatever was asked for; a host takes what it needs of them. */
function grantQueues(value: number, current: ControllerFeatures): CommandResult {
  if (current.hasIoQueues()) throw new DriveError('commandSequence', 'I/O queues exist already');
  for (const bits of Object.values(numberOfQueuesBits)) {
    if (field(value, bits) === COUNT_INVALID) throw refuse('65536 queues, allowed: up to 65535');
  }
  return { dw0: queueCountWord(current), dw1: 0 };
}

function setThreshold(value: number, { temperatureThresholds }: ControllerFeatures): void {
  const sensor = field(value, temperatureThresholdBits.sensor);
  const kind = field(value, temperatureThresholdBits.under);
  if (sensor !== COMPOSITE_SENSOR && sensor !== ALL_SENSORS) throw refuse(`sensor ${sensor}, allowed: 0, 15`);
  if (kind >= THRESHOLD_KINDS) throw refuse(`threshold type ${kind}, allowed: 0, 1`);
  temperatureThresholds[kind === 0 ? 'over' : 'under'] = field(value, temperatureThresholdBits.threshold);
}

function setBehavior(bytes: Uint8Array, current: ControllerFeatures): void {
  const { acre, etdas, lbafee, hdisns, cdfe } = hostBehaviorData.decode(bytes);
  const isUnknown = acre > 1 || etdas !== 0 || lbafee !== 0 || hdisns !== 0 || cdfe !== 0;
  if (isUnknown || hostBehaviorData.firstNonZeroReserved(bytes) !== undefined) {
    throw refuse('host behavior, allowed: command retry delays (byte 0)');
  }
  current.commandRetryDelays = acre === 1;
}
