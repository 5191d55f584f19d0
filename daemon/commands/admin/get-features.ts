import { packBits } from '../../../spec/bits.ts';
import {
  featureCapabilityBits,
  featureOf,
  featureSelects,
  features,
  getFeaturesBits,
  type FeatureName,
} from '../../../spec/features.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import type { CommandContext, CommandDefinition, CommandResult, ControllerFeatures } from '../contract.ts';
import { checkLength, field, maskOf, refuse } from '../fields.ts';

export const getFeatures = (): CommandDefinition => ({
  row: adminOpcodes.getFeatures,
  allowedBits: { cdw10: maskOf(getFeaturesBits) },
  namespace: 'any',
  run: getFeature,
});

/** Counts minus 1, submission queues low and completion queues high. */
export const queueCountWord = ({ ioQueueCountMax }: ControllerFeatures): number =>
  ((ioQueueCountMax - 1) << 16) | (ioQueueCountMax - 1);

function getFeature({ entry, data, association }: CommandContext): CommandResult {
  const name = featureOf(field(entry.cdw10, getFeaturesBits.fid));
  if (name === undefined) throw refuse(`feature ${field(entry.cdw10, getFeaturesBits.fid)}`);
  // No feature of ours has a data structure; hosts may send a buffer all the same, and nothing is put into it.
  if (data.lengthBytes > 0) checkLength(data, data.lengthBytes);
  const select = field(entry.cdw10, getFeaturesBits.select);
  switch (select) {
    case featureSelects.current:
      return { dw0: currentValue(name, association.features), dw1: 0 };
    case featureSelects.default:
    case featureSelects.saved:
      return { dw0: defaultValue(name, association.features), dw1: 0 };
    case featureSelects.supportedCapabilities: {
      const changeable = features[name].changeable ? 1 : 0;
      return { dw0: packBits(featureCapabilityBits, { changeable }), dw1: 0 };
    }
    default:
      throw refuse(`select ${select}, allowed: 0 to 3`);
  }
}

function currentValue(name: FeatureName, current: ControllerFeatures): number {
  switch (name) {
    case 'volatileWriteCache':
      return current.writeCache ? 1 : 0;
    case 'numberOfQueues':
      return queueCountWord(current);
    case 'keepAliveTimer':
      return current.keepAliveTimeoutMs();
  }
}

function defaultValue(name: FeatureName, current: ControllerFeatures): number {
  switch (name) {
    case 'volatileWriteCache':
      return 1;
    case 'numberOfQueues':
      return queueCountWord(current);
    case 'keepAliveTimer':
      return 0;
  }
}
