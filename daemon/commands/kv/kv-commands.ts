import type { CommandDefinition, CommandModules, CommandOptions } from '../contract.ts';
import { kvAppend } from './append.ts';
import { attend, attendExchange } from './attend.ts';
import { attendResult } from './attend-result.ts';
import { kvCreate } from './create.ts';
import { kvFlush } from './flush.ts';
import { kvFork } from './fork.ts';
import { kvQuery } from './query.ts';
import { kvReadBack } from './read-back.ts';
import { kvReclaim } from './reclaim.ts';
import { kvTruncate } from './truncate.ts';

export const kvCommands = (options: CommandOptions, modules: CommandModules): CommandDefinition[] => [
  kvFlush(modules),
  kvCreate(modules),
  kvAppend(options, modules),
  kvFork(modules),
  kvTruncate(modules),
  kvReclaim(modules),
  kvQuery(),
  kvReadBack(options, modules),
  attend(options, modules),
  attendResult(),
  attendExchange(options, modules),
];
