import { asyncEventConfigurationBits } from '../../../spec/async-events.ts';
import { discoveryOpcodes } from '../../../spec/opcodes.ts';
import { abort } from './abort.ts';
import { asyncEventRequest } from './async-event-request.ts';
import { getFeatures } from './get-features.ts';
import { keepAlive } from './keep-alive.ts';
import { setFeatures } from './set-features.ts';
import type { FeatureOptions } from './supported-features.ts';
import type { CommandDefinition, DiscoveryOptions, DiscoveryModules } from '../contract.ts';
import { discoveryIdentify } from './discovery-identify.ts';
import { discoveryInformationManagement } from './discovery-information-management.ts';
import { discoveryLogPages } from './discovery-log-pages.ts';

const discoveryController: FeatureOptions = {
  supported: ['asyncEventConfiguration', 'keepAliveTimer', 'hostIdentifier'],
  asyncEventMask: 2 ** asyncEventConfigurationBits.discoveryLog.shift,
};

/** The commands of a discovery controller; those to register only where registrations are taken. */
export function discoveryCommands(options: DiscoveryOptions, { source }: DiscoveryModules): CommandDefinition[] {
  const common = [
    discoveryLogPages(options, source),
    discoveryIdentify(options, source),
    abort(),
    setFeatures(discoveryController),
    getFeatures(discoveryController),
    asyncEventRequest(),
    keepAlive(),
  ];
  const { registrations } = source;
  return registrations === undefined ? common : [...common, discoveryInformationManagement(options, registrations)];
}

/** The rows of the opcode table that have a handler. */
export const discoveryRows = ({ source }: DiscoveryModules) => {
  const { discoveryInformationManagement: registration, ...common } = discoveryOpcodes;
  return source.registrations === undefined ? common : { ...common, registration };
};
