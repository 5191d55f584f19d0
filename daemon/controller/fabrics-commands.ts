import { packBits, strayBits, unpackBits } from '../../spec/bits.ts';
import {
  CNTLID_DYNAMIC,
  connectAttributes,
  connectCommand,
  connectData,
  connectInvalidResult,
  disconnectCommand,
  nqnProblem,
  PROPERTY_SIZE_4,
  PROPERTY_SIZE_8,
  properties,
  propertyAt,
  propertyGetCommand,
  propertySetCommand,
} from '../../spec/fabrics.ts';
import { fabricsTypes } from '../../spec/opcodes.ts';
import { SGL_FLAGS, parseSgl } from '../../spec/sgl.ts';
import { authenticationReceive, authenticationSend } from './authentication-commands.ts';
import type { CommandSlot } from './command-slot.ts';
import { answer, type FabricsAnswer } from './fabrics-answer.ts';
import type { Queue, QueueHost } from './queue.ts';

/** Fabrics commands run in the controller itself: they make queues and controllers, which handlers don't know. */
export function runFabricsCommand(
  queue: Queue,
  slot: CommandSlot,
  host: QueueHost,
): FabricsAnswer | Promise<FabricsAnswer> {
  const type = slot.bytes[connectCommand.offsetOf.fctype];
  if (type === fabricsTypes.connect.opcode) return host.connect(queue, slot);
  if (queue.identity === undefined) return answer('commandSequence');
  if (type === fabricsTypes.authenticationSend.opcode) return authenticationSend(queue, slot);
  if (type === fabricsTypes.authenticationReceive.opcode) return authenticationReceive(queue, slot);
  if (!queue.isUsable) return answer('authenticationRequired');
  // Linux describes the data that there is none of.
  const sgl = parseSgl(slot.bytes, connectCommand.offsetOf.sgl);
  if (!sgl.ok) return answer(sgl.error);
  if (sgl.value.kind !== 'none' || slot.capsule.length > 0) return answer('sglInvalid');
  switch (type) {
    case fabricsTypes.propertyGet.opcode:
      return propertyGet(queue, slot.bytes);
    case fabricsTypes.propertySet.opcode:
      return propertySet(queue, slot.bytes);
    case fabricsTypes.disconnect.opcode:
      return disconnect(queue, slot.bytes);
    default:
      return answer('invalidOpcode');
  }
}

// --- Connect ---

export interface ConnectRequest {
  readonly queueId: number;
  readonly entryCount: number;
  readonly flowControl: boolean;
  readonly keepAliveTimeoutMs: number;
  readonly hostId: Uint8Array;
  readonly controllerId: number;
  readonly subsystemNqn: string;
  readonly hostNqn: string;
}

const ATTRIBUTE_IN_DATA = 1;
const invalidParameter = (ipo: number, iattr: number): FabricsAnswer =>
  answer('connectInvalidParameters', packBits(connectInvalidResult, { ipo, iattr }));
export const invalidInCommand = (field: keyof typeof connectCommand.offsetOf): FabricsAnswer =>
  invalidParameter(connectCommand.offsetOf[field], 0);
export const invalidInData = (field: keyof typeof connectData.offsetOf): FabricsAnswer =>
  invalidParameter(connectData.offsetOf[field], ATTRIBUTE_IN_DATA);

/** Checks everything that needs no knowledge of the subsystem. */
export function parseConnect(slot: CommandSlot): ConnectRequest | FabricsAnswer {
  const { bytes, capsule } = slot;
  const command = connectCommand.decode(bytes);
  if (command.recfmt !== 0) return answer('connectIncompatibleFormat');
  if (command.flags !== SGL_FLAGS || connectCommand.firstNonZeroReserved(bytes) !== undefined)
    return answer('invalidField');
  const sgl = parseSgl(bytes, connectCommand.offsetOf.sgl);
  if (!sgl.ok) return answer(sgl.error);
  if (sgl.value.kind !== 'inCapsule') return answer('sglType');
  if (sgl.value.offset + connectData.sizeBytes > capsule.length) return answer('sglOffset');
  if (sgl.value.length !== connectData.sizeBytes) return answer('sglDataLength');
  if (strayBits(connectAttributes, command.cattr) !== 0) return invalidInCommand('cattr');
  const data = connectData.decode(capsule, sgl.value.offset);
  const stray = connectData.firstNonZeroReserved(capsule, sgl.value.offset);
  if (stray !== undefined) return invalidParameter(stray, ATTRIBUTE_IN_DATA);
  if (data.hostid.every((byte) => byte === 0)) return invalidInData('hostid');
  if (nqnProblem(data.hostnqn) !== undefined) return invalidInData('hostnqn');
  if (command.qid === 0 && data.cntlid !== CNTLID_DYNAMIC) return invalidInData('cntlid');
  return {
    queueId: command.qid,
    entryCount: command.sqsize + 1,
    flowControl: unpackBits(connectAttributes, command.cattr).disableSqFlowControl === 0,
    keepAliveTimeoutMs: command.kato,
    hostId: data.hostid,
    controllerId: data.cntlid,
    subsystemNqn: data.subnqn,
    hostNqn: data.hostnqn,
  };
}

// --- properties and Disconnect ---

function propertyGet(queue: Queue, bytes: Uint8Array): FabricsAnswer {
  const { controller, queueId } = queue.identity as NonNullable<Queue['identity']>;
  if (queueId !== 0) return answer('commandSequence');
  const { attrib, ofst } = propertyGetCommand.decode(bytes);
  const name = propertyAt(ofst);
  if (propertyGetCommand.firstNonZeroReserved(bytes) !== undefined || name === undefined) return answer('invalidField');
  if (attrib !== (properties[name].sizeBytes === 8 ? PROPERTY_SIZE_8 : PROPERTY_SIZE_4)) return answer('invalidField');
  const value = controller.property(name);
  return answer(undefined, Number(value & 0xffff_ffffn), Number(value >> 32n));
}

function propertySet(queue: Queue, bytes: Uint8Array): FabricsAnswer {
  const { controller, queueId } = queue.identity as NonNullable<Queue['identity']>;
  if (queueId !== 0) return answer('commandSequence');
  const { attrib, ofst, value } = propertySetCommand.decode(bytes);
  if (propertySetCommand.firstNonZeroReserved(bytes) !== undefined) return answer('invalidField');
  if (propertyAt(ofst) !== 'cc' || attrib !== PROPERTY_SIZE_4 || value > 0xffff_ffffn) return answer('invalidField');
  return answer(controller.configure(Number(value)) ? undefined : 'invalidField');
}

function disconnect(queue: Queue, bytes: Uint8Array): FabricsAnswer {
  const { queueId } = queue.identity as NonNullable<Queue['identity']>;
  const { recfmt } = disconnectCommand.decode(bytes);
  if (recfmt !== 0) return answer('connectIncompatibleFormat');
  if (disconnectCommand.firstNonZeroReserved(bytes) !== undefined) return answer('invalidField');
  if (queueId === 0) return answer('invalidQueueType');
  return { code: undefined, dw0: 0, dw1: 0, after: () => queue.end('Disconnect') };
}
