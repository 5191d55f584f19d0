/**
 * Which statuses each command may end with, besides success. A command never ends with another; `internal` would be a bug
 * of the drive. The statuses are rows of `errors.ts`.
 */
import type { ErrorCode } from './errors.ts';
import {
  adminOpcodes,
  dataDirections,
  directionOf,
  discoveryOpcodes,
  fabricsTypes,
  kvOpcodes,
  nvmOpcodes,
  type OpcodeRow,
} from './opcodes.ts';

export type CommandSetName = 'admin' | 'nvm' | 'kv' | 'discovery' | 'fabrics';

export interface CommandStatusRow {
  readonly set: CommandSetName;
  /** Of Fabrics commands, the type. */
  readonly opcode: number;
  readonly name: string;
  /** Those that any command of its set and data direction may end with. */
  readonly general: readonly ErrorCode[];
  /** The others. */
  readonly own: readonly ErrorCode[];
}

/** What is wrong before a command is looked at: the entry, its SGL, its queue, its host. */
const everyCommand: readonly ErrorCode[] = [
  'invalidField',
  'commandIdConflict',
  'commandSequence',
  'sglInvalid',
  'sglDataLength',
  'sglType',
  'sglDataBlock',
  'transientTransport',
  'authenticationRequired',
  'hostQuota',
];

/** By the data direction of its opcode. Of a command that waits for its turn, Abort makes `aborted`. */
function generalOf(set: CommandSetName, opcode: number): ErrorCode[] {
  const direction = directionOf(opcode);
  const codes = [...everyCommand];
  if (direction !== dataDirections.controllerToHost) codes.push('sglOffset');
  if ((direction & dataDirections.hostToController) !== 0) codes.push('commandInterrupted');
  if (direction !== dataDirections.none) codes.push('aborted');
  if (set === 'nvm' || set === 'kv') codes.push('invalidNamespace', 'formatInProgress');
  return codes;
}

function rowsOf<K extends string>(
  set: CommandSetName,
  table: Readonly<Record<K, OpcodeRow>>,
  own: Readonly<Record<K, readonly ErrorCode[]>>,
): CommandStatusRow[] {
  return Object.entries<OpcodeRow>(table).map(([key, { opcode, name }]) => ({
    set,
    opcode,
    name,
    // A buffer of any length will do for a feature.
    general: generalOf(set, opcode).filter((code) => key !== 'getFeatures' || code !== 'sglDataLength'),
    own: own[key as K],
  }));
}

const settings: readonly ErrorCode[] = [
  'featureNotSaveable',
  'featureNotNamespaceSpecific',
  'commandSetRejected',
  'keepAliveTimeout',
];

const admin = rowsOf('admin', adminOpcodes, {
  getLogPage: ['invalidNamespace', 'invalidLogPage', 'invalidCommandSet'],
  identify: ['invalidNamespace', 'invalidCommandSet'],
  abort: ['invalidNamespace'],
  setFeatures: [...settings, 'writeFault'],
  getFeatures: [],
  asyncEventRequest: ['invalidNamespace', 'asyncEventLimit', 'aborted'],
  keepAlive: ['invalidNamespace'],
  formatNvm: [
    'invalidNamespace',
    'invalidFormat',
    'operationDenied',
    'formatInProgress',
    'namespaceWriteProtected',
    'writeFault',
  ],
  regionCreate: ['invalidNamespace', 'regionLimit'],
  regionDelete: ['invalidNamespace'],
});

const notOfAll: readonly ErrorCode[] = ['invalidOpcode'];
const reads: readonly ErrorCode[] = [...notOfAll, 'lbaRange', 'bufferFull', 'unrecoveredRead', 'writeFault'];
const writes: readonly ErrorCode[] = [...notOfAll, 'lbaRange', 'namespaceWriteProtected', 'writeFault'];

const nvm = rowsOf('nvm', nvmOpcodes, {
  flush: ['writeFault'],
  write: [...writes, 'bufferFull'],
  read: reads,
  compare: [...reads, 'compareFailure'],
  writeZeroes: writes,
  datasetManagement: writes,
  verify: reads,
});

const named: readonly ErrorCode[] = [...notOfAll, 'unknownSequence', 'leaseExpired'];
const changes: readonly ErrorCode[] = ['namespaceWriteProtected', 'writeFault'];
const makes: readonly ErrorCode[] = [...changes, 'unsupportedVersion', 'sequenceExists', 'sequenceLimit'];
const appends: readonly ErrorCode[] = [
  ...named,
  ...changes,
  'layerRange',
  'tokenRange',
  'appendGap',
  'appendConflict',
  'capacityExceeded',
  'bufferFull',
  'unrecoveredRead',
];
const attends: readonly ErrorCode[] = [
  ...appends,
  'unsupportedVersion',
  'attendMode',
  'headRange',
  'slotInUse',
  'slotLimit',
];

const kv = rowsOf('kv', kvOpcodes, {
  flush: ['writeFault'],
  create: [...notOfAll, ...makes, 'invalidShape'],
  append: appends,
  fork: [...named, ...makes, 'bufferFull', 'unrecoveredRead'],
  truncate: [...named, ...changes, 'layerRange', 'tokenRange', 'bufferFull', 'unrecoveredRead'],
  reclaim: [...named, 'writeFault'],
  query: named,
  readBack: [...named, 'layerRange', 'headRange', 'tokenRange', 'bufferFull', 'unrecoveredRead'],
  attend: attends,
  attendResult: [...notOfAll, 'slotEmpty', 'slotLimit'],
  attendExchange: attends,
});

const discovery = rowsOf('discovery', discoveryOpcodes, {
  getLogPage: ['invalidNamespace', 'invalidLogPage', 'invalidCommandSet'],
  identify: [],
  abort: ['invalidNamespace'],
  setFeatures: settings.filter((code) => code !== 'commandSetRejected'),
  getFeatures: [],
  asyncEventRequest: ['invalidNamespace', 'asyncEventLimit', 'aborted'],
  keepAlive: ['invalidNamespace'],
  discoveryInformationManagement: ['invalidNamespace', 'invalidDiscoveryInformation', 'discoveryLimit'],
});

const fabricsRow = (type: OpcodeRow, own: readonly ErrorCode[]): CommandStatusRow => ({
  set: 'fabrics',
  opcode: type.opcode,
  name: type.name,
  general: ['invalidField', 'commandIdConflict', 'commandSequence', 'sglInvalid', 'sglType', 'transientTransport'],
  own,
});
const withoutData: readonly ErrorCode[] = ['authenticationRequired', 'sglDataBlock'];

const fabrics = [
  fabricsRow(fabricsTypes.propertySet, withoutData),
  fabricsRow(fabricsTypes.propertyGet, withoutData),
  fabricsRow(fabricsTypes.disconnect, [...withoutData, 'connectIncompatibleFormat', 'invalidQueueType']),
  fabricsRow(fabricsTypes.connect, [
    'sglDataBlock',
    'sglOffset',
    'sglDataLength',
    'connectIncompatibleFormat',
    'connectInvalidParameters',
    'connectInvalidHost',
    'connectBusy',
    'keepAliveTimeout',
    'hostQuota',
  ]),
  fabricsRow(fabricsTypes.authenticationSend, ['sglDataBlock', 'sglOffset', 'sglDataLength']),
  fabricsRow(fabricsTypes.authenticationReceive, ['sglDataBlock', 'sglDataLength']),
];

export const commandStatuses: readonly CommandStatusRow[] = [...admin, ...nvm, ...kv, ...discovery, ...fabrics];
