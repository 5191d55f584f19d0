import { packBits, strayBits } from '../../../spec/bits.ts';
import {
  featureCapabilityBits,
  type FeatureName,
  featureSelects,
  features as featureTable,
  getFeaturesBits,
  hostBehaviorData,
  hostIdentifierBits,
  temperatureThresholdBits,
  timestampBits,
  timestampData,
} from '../../../spec/features.ts';
import type { BitFields } from '../../../spec/bits.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import {
  type Association,
  type CommandContext,
  type CommandDefinition,
  type CommandResult,
  type ControllerFeatures,
  defaultNumbers,
  defaultThresholds,
  SUCCESS,
} from '../contract.ts';
import { ALL_BITS, field, maskOf, refuse } from '../fields.ts';
import { type FeatureOptions, supportedFeature } from './supported-features.ts';

const TIMESTAMP_BYTES = 6;
const NO_DATA = new Uint8Array(0);
const { sensor, under } = temperatureThresholdBits;
/** What CDW11 chooses of a feature to get. */
const selectors: Partial<Record<FeatureName, BitFields>> = {
  temperatureThreshold: { sensor, under },
  hostIdentifier: hostIdentifierBits,
};

export const getFeatures = (options: FeatureOptions): CommandDefinition => ({
  row: adminOpcodes.getFeatures,
  allowedBits: { cdw10: maskOf(getFeaturesBits), cdw11: ALL_BITS },
  namespace: 'any',
  run: (context) => getFeature(context, options),
});

/** Counts minus 1, submission queues low and completion queues high. */
export const queueCountWord = ({ ioQueueCountMax }: ControllerFeatures): number =>
  ((ioQueueCountMax - 1) << 16) | (ioQueueCountMax - 1);

/** Hosts may give a buffer for any feature; what a feature does not fill is zeros. */
async function getFeature(context: CommandContext, options: FeatureOptions): Promise<CommandResult> {
  const { entry, data, association } = context;
  const { cdw10, cdw11 } = entry;
  const name = supportedFeature(field(cdw10, getFeaturesBits.fid), options);
  const select = field(cdw10, getFeaturesBits.select);
  if (strayBits(selectors[name] ?? {}, cdw11) !== 0) throw refuse(`CDW11 ${cdw11} for ${name}`);
  if (select > featureSelects.supportedCapabilities) throw refuse(`select ${select}, allowed: 0 to 3`);
  if (select === featureSelects.supportedCapabilities) {
    const changeable = featureTable[name].changeable ? 1 : 0;
    return { dw0: packBits(featureCapabilityBits, { changeable }), dw1: 0 };
  }
  const isCurrent = select === featureSelects.current;
  const { dw0, bytes } = valueOf(name, cdw11, isCurrent, association);
  if (data.lengthBytes > 0) {
    const target = new Uint8Array(data.lengthBytes);
    target.set(bytes.subarray(0, target.length));
    await data.write(target);
  }
  return dw0 === 0 ? SUCCESS : { dw0, dw1: 0 };
}

interface FeatureValue {
  readonly dw0: number;
  readonly bytes: Uint8Array;
}

function valueOf(name: FeatureName, cdw11: number, isCurrent: boolean, association: Association): FeatureValue {
  const { features } = association;
  const number = (dw0: number): FeatureValue => ({ dw0, bytes: NO_DATA });
  switch (name) {
    case 'numberOfQueues':
      return number(queueCountWord(features));
    case 'keepAliveTimer':
      return number(isCurrent ? features.keepAliveTimeoutMs() : 0);
    case 'temperatureThreshold':
      return number(threshold(cdw11, isCurrent ? features.temperatureThresholds : defaultThresholds));
    case 'timestamp':
      return { dw0: 0, bytes: isCurrent ? timestamp(features) : new Uint8Array(timestampData.sizeBytes) };
    case 'hostBehavior':
      return { dw0: 0, bytes: hostBehaviorData.encode({ acre: isCurrent && features.commandRetryDelays ? 1 : 0 }) };
    case 'hostIdentifier':
      if (cdw11 !== 1) throw refuse('host identifier of 64 bits; on fabrics it has 128 (EXHID 1)');
      return { dw0: 0, bytes: association.hostId };
    default:
      return number((isCurrent ? features.numbers : defaultNumbers)[name]);
  }
}

function threshold(cdw11: number, thresholds: ControllerFeatures['temperatureThresholds']): number {
  const kind = field(cdw11, under);
  if (field(cdw11, sensor) !== 0) throw refuse(`sensor ${field(cdw11, sensor)}, allowed: 0`);
  if (kind > 1) throw refuse(`threshold type ${kind}, allowed: 0, 1`);
  return kind === 0 ? thresholds.over : thresholds.under;
}

function timestamp(features: ControllerFeatures): Uint8Array {
  const { milliseconds, isSetByHost } = features.timestamp();
  const time = Buffer.alloc(TIMESTAMP_BYTES);
  time.writeUIntLE(milliseconds % 2 ** 48, 0, TIMESTAMP_BYTES);
  const attributes = packBits(timestampBits, { origin: isSetByHost ? 1 : 0 });
  return timestampData.encode({ milliseconds: time, attributes });
}
