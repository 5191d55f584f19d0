import type { CommandDefinition, CommandModules, CommandOptions } from '../contract.ts';
import { nvmCompare } from './compare.ts';
import { datasetManagement } from './dataset-management.ts';
import { nvmFlush } from './flush.ts';
import { nvmRead } from './read.ts';
import { nvmVerify } from './verify.ts';
import { writeZeroes } from './write-zeroes.ts';
import { nvmWrite } from './write.ts';

export const nvmCommands = (options: CommandOptions, modules: CommandModules): CommandDefinition[] => [
  nvmFlush(modules),
  nvmWrite(options, modules),
  nvmRead(options, modules),
  nvmCompare(options, modules),
  writeZeroes(modules),
  datasetManagement(modules),
  nvmVerify(options, modules),
];
