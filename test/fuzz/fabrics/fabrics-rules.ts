/** spec/transport.md and spec/authentication.md as rules: Connect, properties, Disconnect, authentication commands. */
import { authenticationCommand, authenticationProtocol } from '../../../spec/authentication.ts';
import { strayBits, unpackBits } from '../../../spec/bits.ts';
import type { ErrorCode } from '../../../spec/errors.ts';
import {
  ANY_SUBSYSTEM_NQN,
  ccBits,
  CNTLID_DYNAMIC,
  commandSetSelections,
  connectAttributes,
  connectCommand,
  connectData,
  DISCOVERY_NQN,
  disconnectCommand,
  nqnProblem,
  properties,
  propertyAt,
  propertyGetCommand,
  propertySetCommand,
  subsystemNqn,
} from '../../../spec/fabrics.ts';
import { limits } from '../../../spec/limits.ts';
import { fabricsTypes } from '../../../spec/opcodes.ts';
import { parseSgl, SGL_FLAGS } from '../../../spec/sgl.ts';
import { SERIAL } from '../../controller/rig.ts';
import { HOSTS, nqnOf } from '../commands/names.ts';

export interface ControllerModel {
  readonly cntlid: number;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly isTcp: boolean;
  readonly isDiscovery: boolean;
  state: 'disabled' | 'ready' | 'failed' | 'shutDown';
  isEnabled: boolean;
  readonly queues: Set<number>;
}

/** One connection as it should be. */
export interface LinkModel {
  readonly isTcp: boolean;
  controller: ControllerModel | undefined;
  queueId: number;
  /** The host has not proved yet who it is. */
  isUnproven: boolean;
}

export interface FabricsContext {
  readonly entry: Uint8Array;
  readonly capsule: Uint8Array;
  readonly link: LinkModel;
  readonly controllers: ReadonlyMap<number, ControllerModel>;
  /** Whether a host of this name has to prove who it is. */
  readonly demandsProof: (hostNqn: string) => boolean;
}

export type Faults = Set<ErrorCode>;
const subsystems: readonly string[] = [subsystemNqn(SERIAL), ANY_SUBSYSTEM_NQN, DISCOVERY_NQN];

/** Everything that is wrong with a Fabrics command; an empty set: it succeeds. */
export function fabricsFaults(context: FabricsContext): Faults {
  const { entry, capsule, link } = context;
  const type = entry[connectCommand.offsetOf.fctype];
  const faults: Faults = new Set();
  if (type === fabricsTypes.connect.opcode) return connectFaults(context);
  if (link.controller === undefined) return faults.add('commandSequence');
  const isSend = type === fabricsTypes.authenticationSend.opcode;
  if (isSend || type === fabricsTypes.authenticationReceive.opcode) return messageFaults(context, isSend);
  if (link.isUnproven) return faults.add('authenticationRequired');
  const sgl = parseSgl(entry, connectCommand.offsetOf.sgl);
  if (!sgl.ok) faults.add(sgl.error);
  else if (sgl.value.kind !== 'none') faults.add('sglInvalid');
  if (capsule.length > 0) faults.add('sglInvalid');
  if (type === fabricsTypes.propertyGet.opcode) getFaults(context, faults);
  else if (type === fabricsTypes.propertySet.opcode) setFaults(context, faults);
  else if (type === fabricsTypes.disconnect.opcode) disconnectFaults(context, faults);
  else faults.add('invalidOpcode');
  return faults;
}

function connectFaults(context: FabricsContext): Faults {
  const { entry, capsule, link } = context;
  const faults: Faults = new Set();
  if (link.controller !== undefined) return faults.add('commandSequence');
  const command = connectCommand.decode(entry);
  if (command.recfmt !== 0) faults.add('connectIncompatibleFormat');
  const isPlain = command.flags === SGL_FLAGS && connectCommand.firstNonZeroReserved(entry) === undefined;
  if (!isPlain) faults.add('invalidField');
  if (strayBits(connectAttributes, command.cattr) !== 0) faults.add('connectInvalidParameters');
  const sgl = parseSgl(entry, connectCommand.offsetOf.sgl);
  if (!sgl.ok) return faults.add(sgl.error);
  if (sgl.value.kind !== 'inCapsule') return faults.add('sglType');
  const { offset, length } = sgl.value;
  if (length !== connectData.sizeBytes) faults.add('sglDataLength');
  if (offset + connectData.sizeBytes > capsule.length) return faults.add('sglOffset');
  dataFaults(context, command, offset, faults);
  return faults;
}

function dataFaults(
  { capsule, link, controllers }: FabricsContext,
  command: ReturnType<typeof connectCommand.decode>,
  offset: number,
  faults: Faults,
): void {
  const data = connectData.decode(capsule, offset);
  const isAdmin = command.qid === 0;
  const isRight =
    connectData.firstNonZeroReserved(capsule, offset) === undefined &&
    data.hostid.some((byte) => byte !== 0) &&
    nqnProblem(data.hostnqn) === undefined &&
    subsystems.includes(data.subnqn) &&
    (!isAdmin || data.cntlid === CNTLID_DYNAMIC) &&
    command.sqsize >= 1 &&
    command.sqsize < (isAdmin ? limits.adminQueueEntriesMax : limits.queueEntriesMax);
  if (!isRight) faults.add('connectInvalidParameters');
  if (data.hostnqn === nqnOf(HOSTS.nobody)) faults.add('connectInvalidHost');
  if (isAdmin) {
    if (command.kato > limits.keepAliveTimeoutMsMax) faults.add('keepAliveTimeout');
    return;
  }
  const controller = controllers.get(data.cntlid);
  const isDiscovery = data.subnqn === DISCOVERY_NQN;
  const isOurs =
    controller !== undefined &&
    controller.isTcp === link.isTcp &&
    controller.isDiscovery === isDiscovery &&
    controller.hostNqn === data.hostnqn &&
    controller.hostId === Buffer.from(data.hostid).toString('hex') &&
    command.qid <= (isDiscovery ? 0 : limits.ioQueueCountMax);
  if (!isOurs) faults.add('connectInvalidParameters');
  else if (controller.state !== 'ready' || controller.queues.has(command.qid)) faults.add('commandSequence');
}

function getFaults({ entry, link }: FabricsContext, faults: Faults): void {
  if (link.queueId !== 0) faults.add('commandSequence');
  const { attrib, ofst } = propertyGetCommand.decode(entry);
  const name = propertyAt(ofst);
  const isRight =
    propertyGetCommand.firstNonZeroReserved(entry) === undefined &&
    name !== undefined &&
    attrib === (properties[name].sizeBytes === 8 ? 1 : 0);
  if (!isRight) faults.add('invalidField');
}

function setFaults({ entry, link }: FabricsContext, faults: Faults): void {
  if (link.queueId !== 0) faults.add('commandSequence');
  const { attrib, ofst, value } = propertySetCommand.decode(entry);
  const isRight =
    propertySetCommand.firstNonZeroReserved(entry) === undefined &&
    ofst === properties.cc.offset &&
    attrib === 0 &&
    value <= 0xffff_ffffn &&
    strayBits(ccBits, Number(value)) === 0;
  if (!isRight) faults.add('invalidField');
}

function disconnectFaults({ entry, link }: FabricsContext, faults: Faults): void {
  if (disconnectCommand.decode(entry).recfmt !== 0) faults.add('connectIncompatibleFormat');
  if (disconnectCommand.firstNonZeroReserved(entry) !== undefined) faults.add('invalidField');
  if (link.queueId === 0) faults.add('invalidQueueType');
}

/** Of what carries a message; what is wrong with the message itself is told by the next one. */
function messageFaults({ entry, capsule }: FabricsContext, isSend: boolean): Faults {
  const faults: Faults = new Set();
  const { flags, spsp0, spsp1, secp, lengthBytes } = authenticationCommand.decode(entry);
  const wanted = authenticationProtocol;
  const isRight =
    authenticationCommand.firstNonZeroReserved(entry) === undefined &&
    flags === SGL_FLAGS &&
    spsp0 === wanted.spsp0 &&
    spsp1 === wanted.spsp1 &&
    secp === wanted.secp &&
    lengthBytes > 0;
  if (!isRight) faults.add('invalidField');
  const sgl = parseSgl(entry, authenticationCommand.offsetOf.sgl);
  if (!sgl.ok) return faults.add(sgl.error);
  const { value } = sgl;
  if (value.kind !== 'transport' && !(isSend && value.kind === 'inCapsule')) return faults.add('sglType');
  if (value.kind === 'inCapsule') {
    if (value.offset > capsule.length) faults.add('sglOffset');
    if (value.offset + value.length > capsule.length) faults.add('sglDataLength');
  } else if (capsule.length > 0) faults.add('sglInvalid');
  if (value.length > limits.authenticationBytesMax) faults.add('invalidField');
  if (value.length !== lengthBytes) faults.add('sglDataLength');
  return faults;
}

/** What a write to CC does to a controller. True: its I/O queues are gone. */
export function configure(controller: ControllerModel, value: number): boolean {
  const cc = unpackBits(ccBits, value);
  const wasEnabled = controller.isEnabled;
  controller.isEnabled = cc.en === 1;
  let isReset = false;
  if (wasEnabled && cc.en === 0) {
    controller.state = 'disabled';
    controller.queues.clear();
    isReset = true;
  } else if (!wasEnabled && cc.en === 1 && controller.state === 'disabled') {
    const isRight =
      (cc.css === commandSetSelections.nvm || cc.css === commandSetSelections.allSupported) &&
      cc.mps === 0 &&
      cc.ams === 0 &&
      cc.crime === 0 &&
      cc.iosqes === 6 &&
      cc.iocqes === 4;
    controller.state = isRight ? 'ready' : 'failed';
  }
  if ((cc.shn === 1 || cc.shn === 2) && controller.state !== 'shutDown') controller.state = 'shutDown';
  return isReset;
}
