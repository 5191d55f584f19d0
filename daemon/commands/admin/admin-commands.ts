import type { CommandDefinition, CommandModules, CommandOptions } from '../contract.ts';
import { getFeatures } from './get-features.ts';
import { getLogPage } from './get-log-page.ts';
import { identify } from './identify.ts';
import { keepAlive } from './keep-alive.ts';
import { regionCreate } from './region-create.ts';
import { regionDelete } from './region-delete.ts';
import { setFeatures } from './set-features.ts';

export const adminCommands = (options: CommandOptions, modules: CommandModules): CommandDefinition[] => [
  getLogPage(options, modules),
  identify(options, modules),
  setFeatures(),
  getFeatures(),
  keepAlive(),
  regionCreate(),
  regionDelete(),
];
