import { featureOf, numberOfQueuesBits, setFeaturesBits, volatileWriteCacheBits } from '../../../spec/features.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import { type CommandContext, type CommandDefinition, type CommandResult, SUCCESS } from '../contract.ts';
import { ALL_BITS, checkLength, field, maskOf, refuse } from '../fields.ts';
import { BROADCAST_NSID } from '../namespace-ids.ts';
import { queueCountWord } from './get-features.ts';

const COUNT_INVALID = 0xffff;

/** CDW11 is the value; what else a feature allows in it is checked here, feature by feature. */
export const setFeatures = (): CommandDefinition => ({
  row: adminOpcodes.setFeatures,
  allowedBits: { cdw10: maskOf(setFeaturesBits), cdw11: ALL_BITS },
  namespace: 'any',
  run: setFeature,
});

function setFeature({ entry, data, association }: CommandContext): CommandResult {
  const { cdw10, cdw11, namespaceId } = entry;
  const { features } = association;
  const name = featureOf(field(cdw10, setFeaturesBits.fid));
  if (name === undefined) throw refuse(`feature ${field(cdw10, setFeaturesBits.fid)}`);
  if (field(cdw10, setFeaturesBits.save) === 1) throw new DriveError('featureNotSaveable', name);
  if (namespaceId !== 0 && namespaceId !== BROADCAST_NSID) throw new DriveError('featureNotNamespaceSpecific', name);
  checkLength(data, 0);
  switch (name) {
    case 'volatileWriteCache':
      if ((cdw11 & ~maskOf(volatileWriteCacheBits)) !== 0) throw refuse(`write cache ${cdw11}, allowed: 0, 1`);
      features.writeCache = cdw11 === 1;
      return SUCCESS;
    case 'numberOfQueues':
      if (features.hasIoQueues()) throw new DriveError('commandSequence', 'I/O queues exist already');
      for (const bits of Object.values(numberOfQueuesBits)) {
        if (field(cdw11, bits) === COUNT_INVALID) throw refuse('65536 queues, allowed: up to 65535');
      }
      // The drive grants all it has, whatever was asked for; a host takes what it needs of them.
      return { dw0: queueCountWord(features), dw1: 0 };
    case 'keepAliveTimer':
      features.setKeepAliveTimeoutMs(cdw11);
      return SUCCESS;
  }
}
