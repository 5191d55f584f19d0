import { asyncEventConfigurationBits, criticalWarningBits } from '../../../spec/async-events.ts';
import { type FeatureName, features } from '../../../spec/features.ts';
import { maskOf } from '../fields.ts';
import type { CommandDefinition, CommandModules, CommandOptions } from '../contract.ts';
import { abort } from './abort.ts';
import { asyncEventRequest } from './async-event-request.ts';
import { formatNvm } from './format-nvm.ts';
import { getFeatures } from './get-features.ts';
import { getLogPage } from './get-log-page.ts';
import { identify } from './identify.ts';
import { keepAlive } from './keep-alive.ts';
import { regionCreate } from './region-create.ts';
import { regionDelete } from './region-delete.ts';
import { setFeatures } from './set-features.ts';
import type { FeatureOptions } from './supported-features.ts';

const NAMESPACE_ATTRIBUTES = 1 << asyncEventConfigurationBits.namespaceAttributes.shift;

const ioController: FeatureOptions = {
  supported: Object.keys(features) as FeatureName[],
  asyncEventMask: (maskOf(criticalWarningBits) | NAMESPACE_ATTRIBUTES) >>> 0,
};

export const adminCommands = (options: CommandOptions, modules: CommandModules): CommandDefinition[] => [
  getLogPage(options, modules),
  identify(options, modules),
  setFeatures(ioController, modules.durability),
  getFeatures(ioController),
  abort(),
  asyncEventRequest(),
  keepAlive(),
  formatNvm(modules),
  regionCreate(),
  regionDelete(),
];
