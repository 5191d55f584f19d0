import { adminOpcodes } from '../../../spec/opcodes.ts';
import type { CommandDefinition } from '../contract.ts';

/** Completes when there is something to tell. */
export const asyncEventRequest = (): CommandDefinition => ({
  row: adminOpcodes.asyncEventRequest,
  allowedBits: {},
  namespace: 'none',
  run: ({ entry, association }) => association.events.request(entry.commandId),
});
