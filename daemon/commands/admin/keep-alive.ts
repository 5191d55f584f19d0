import { adminOpcodes } from '../../../spec/opcodes.ts';
import { type CommandDefinition, SUCCESS } from '../contract.ts';

/** Every command restarts the timer; this one does nothing else. */
export const keepAlive = (): CommandDefinition => ({
  row: adminOpcodes.keepAlive,
  allowedBits: {},
  namespace: 'none',
  run: () => SUCCESS,
});
