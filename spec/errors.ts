/**
 * One table of everything that can go wrong: stable code, text, NVMe status (status code type and code), HTTP status,
 * and whether the same request can succeed later.
 *
 * SCT 0 generic, 1 command specific (C0h to FFh are ours), 2 media and data integrity.
 */
export interface ErrorRow {
  readonly text: string;
  readonly sct: number;
  readonly sc: number;
  readonly http: number;
  readonly retry: boolean;
}

const row = (text: string, sct: number, sc: number, http: number, retry = false): ErrorRow => ({
  text,
  sct,
  sc,
  http,
  retry,
});

export const errorTable = {
  invalidOpcode: row('invalid command opcode', 0, 0x01, 400),
  invalidField: row('invalid field in command', 0, 0x02, 400),
  commandIdConflict: row('command id in use', 0, 0x03, 409),
  internal: row('internal error', 0, 0x06, 500, true),
  aborted: row('command aborted, as the host asked or because its association ended', 0, 0x07, 503),
  invalidNamespace: row('invalid namespace or format', 0, 0x0b, 404),
  commandSequence: row('command sequence error', 0, 0x0c, 409),
  sglInvalid: row('invalid SGL descriptor', 0, 0x0d, 400),
  sglCount: row('invalid number of SGL descriptors', 0, 0x0e, 400),
  sglDataLength: row('data SGL length invalid', 0, 0x0f, 400),
  sglType: row('SGL descriptor type invalid', 0, 0x11, 400),
  keepAliveTimeout: row('keep alive timeout invalid', 0, 0x1a, 400),
  operationDenied: row('operation denied', 0, 0x15, 403),
  sglOffset: row('SGL offset invalid', 0, 0x16, 400),
  sglDataBlock: row('memory region key, range or owner invalid', 0, 0x1e, 400),
  namespaceWriteProtected: row('namespace is write protected', 0, 0x20, 403),
  commandInterrupted: row('command not started: too much data waits', 0, 0x21, 503, true),
  transientTransport: row('data digest does not fit the data', 0, 0x22, 503, true),
  lbaRange: row('LBA out of range', 0, 0x80, 400),
  capacityExceeded: row('capacity exceeded', 0, 0x81, 507, true),
  namespaceNotReady: row('namespace not ready', 0, 0x82, 503, true),
  asyncEventLimit: row('too many asynchronous event requests', 1, 0x05, 400),
  formatInProgress: row('format in progress', 0, 0x84, 409, true),
  invalidLogPage: row('invalid log page', 1, 0x09, 400),
  invalidFormat: row('invalid format', 1, 0x0a, 400),
  featureNotSaveable: row('feature not saveable', 1, 0x0d, 400),
  featureNotChangeable: row('feature not changeable', 1, 0x0e, 400),
  featureNotNamespaceSpecific: row('feature not namespace specific', 1, 0x0f, 400),
  commandSetRejected: row('I/O command set combination rejected', 1, 0x2b, 400),
  invalidCommandSet: row('invalid I/O command set', 1, 0x2c, 400),
  invalidDiscoveryInformation: row('invalid discovery information', 1, 0x2f, 400),
  discoveryLimit: row('too many discovery entries', 1, 0x32, 507, true),
  connectIncompatibleFormat: row('connect: incompatible format', 1, 0x80, 400),
  connectBusy: row('connect: controller busy', 1, 0x81, 503, true),
  connectInvalidParameters: row('connect: invalid parameters', 1, 0x82, 400),
  connectInvalidHost: row('connect: host not allowed', 1, 0x84, 403),
  invalidQueueType: row('invalid queue type', 1, 0x85, 400),
  authenticationRequired: row('authentication required', 1, 0x91, 401),
  unknownSequence: row('unknown sequence', 1, 0xc0, 404),
  sequenceExists: row('sequence id in use', 1, 0xc1, 409),
  invalidShape: row('invalid sequence shape', 1, 0xc2, 400),
  appendGap: row("append position beyond the layer's length", 1, 0xc3, 409),
  appendConflict: row('append differs from the tokens already there', 1, 0xc4, 409),
  tokenRange: row('token out of range', 1, 0xc5, 400),
  layerRange: row('layer out of range', 1, 0xc6, 400),
  headRange: row('head out of range', 1, 0xc7, 400),
  sequenceLimit: row('too many sequences', 1, 0xc8, 507, true),
  bufferFull: row('tail buffer full', 1, 0xc9, 507, true),
  slotInUse: row('result slot in use', 1, 0xca, 409),
  slotEmpty: row('result slot empty', 1, 0xcb, 404),
  slotLimit: row('result slot number or size beyond the limit', 1, 0xcc, 400),
  regionLimit: row('memory region count or size beyond the limit', 1, 0xcd, 507),
  attendMode: row('attention mode not supported', 1, 0xce, 400),
  unsupportedVersion: row('descriptor version not supported', 1, 0xcf, 400),
  hostQuota: row('a quota of the host is used up', 1, 0xd1, 507, true),
  leaseExpired: row('sequence lease expired', 1, 0xd0, 404),
  writeFault: row('write fault', 2, 0x80, 500),
  unrecoveredRead: row('unrecovered read error', 2, 0x81, 500),
  compareFailure: row('compare failure', 2, 0x85, 409),
  // Vendor specific: errors that no NVMe command meets.
  addressInUse: row('address in use', 7, 0x01, 409),
  mediaFormat: row('not a drive of this format', 7, 0x02, 500),
  folderInUse: row('drive folder in use', 7, 0x03, 409, true),
  folderAccess: row('drive folder not accessible', 7, 0x04, 403),
  faultsNotAllowed: row('fault injection is off', 7, 0x05, 403),
  unknownFault: row('unknown fault', 7, 0x06, 404),
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;
