/**
 * Every command the drive knows. The low two bits of an opcode are its data direction (NVMe base specification,
 * "Opcode" in the common command format): 00b none, 01b host to controller, 10b controller to host, 11b both.
 */
export const dataDirections = { none: 0, hostToController: 1, controllerToHost: 2, both: 3 } as const;
export type DataDirection = keyof typeof dataDirections;

export interface OpcodeRow {
  readonly opcode: number;
  readonly name: string;
  /** DW1 of a successful completion is the command's device latency in ns, at most FFFFFFFFh; 0 where it is not modelled. */
  readonly deviceLatency?: true;
}

/** Commands of the admin queue. C0h and above are vendor commands. */
export const adminOpcodes = {
  getLogPage: { opcode: 0x02, name: 'Get Log Page' },
  identify: { opcode: 0x06, name: 'Identify' },
  /** CDW10: abortBits. DW0: 0 aborted, 1 not. */
  abort: { opcode: 0x08, name: 'Abort' },
  setFeatures: { opcode: 0x09, name: 'Set Features' },
  getFeatures: { opcode: 0x0a, name: 'Get Features' },
  /** Completes when there is an event: DW0 asyncEventBits. */
  asyncEventRequest: { opcode: 0x0c, name: 'Asynchronous Event Request' },
  keepAlive: { opcode: 0x18, name: 'Keep Alive' },
  /** CDW10: formatBits. NSID FFFFFFFFh: every namespace. */
  formatNvm: { opcode: 0x80, name: 'Format NVM' },
  /** CDW10-11: size in bytes. Returns a memory region descriptor. */
  regionCreate: { opcode: 0xc2, name: 'Memory Region Create' },
  /** CDW10: key. */
  regionDelete: { opcode: 0xc4, name: 'Memory Region Delete' },
} as const satisfies Record<string, OpcodeRow>;

/** Commands of a discovery controller: where subsystems are. */
export const discoveryOpcodes = {
  getLogPage: adminOpcodes.getLogPage,
  identify: adminOpcodes.identify,
  abort: adminOpcodes.abort,
  setFeatures: adminOpcodes.setFeatures,
  getFeatures: adminOpcodes.getFeatures,
  asyncEventRequest: adminOpcodes.asyncEventRequest,
  keepAlive: adminOpcodes.keepAlive,
  /** CDW10: dimBits. Data: dimHeader and entries. Only of a discovery service that takes registrations. */
  discoveryInformationManagement: { opcode: 0x21, name: 'Discovery Information Management' },
} as const satisfies Record<string, OpcodeRow>;

/** CDW10 of Abort. */
export const abortBits = {
  sqid: { shift: 0, width: 16, meaning: 'queue of the command' },
  cid: { shift: 16, width: 16, meaning: 'its command id' },
} as const;

/** CDW10 of Format NVM. */
export const formatBits = {
  lbafl: { shift: 0, width: 4, meaning: 'LBA format, low bits: 0, the only one' },
  mset: { shift: 4, width: 1, meaning: 'metadata settings: 0' },
  pi: { shift: 5, width: 3, meaning: 'protection information: 0' },
  pil: { shift: 8, width: 1, meaning: 'protection information location: 0' },
  ses: { shift: 9, width: 3, meaning: 'secureErase' },
  lbafu: { shift: 12, width: 2, meaning: 'LBA format, high bits: 0' },
} as const;

/** Whether Format NVM also erases what it gives up. There is no cryptographic erase (2). */
export const secureErase = { none: 0, userData: 1 } as const;

/** Commands of an I/O queue on a namespace of the NVM command set (CSI 00h). */
export const nvmOpcodes = {
  flush: { opcode: 0x00, name: 'Flush', deviceLatency: true },
  write: { opcode: 0x01, name: 'Write', deviceLatency: true },
  read: { opcode: 0x02, name: 'Read', deviceLatency: true },
  compare: { opcode: 0x05, name: 'Compare', deviceLatency: true },
  writeZeroes: { opcode: 0x08, name: 'Write Zeroes', deviceLatency: true },
  datasetManagement: { opcode: 0x09, name: 'Dataset Management', deviceLatency: true },
  verify: { opcode: 0x0c, name: 'Verify', deviceLatency: true },
} as const satisfies Record<string, OpcodeRow>;

/** Commands of an I/O queue on a namespace of the KV-cache command set (CSI 30h). */
export const kvOpcodes = {
  flush: { opcode: 0x00, name: 'Flush', deviceLatency: true },
  /** Data: createDescriptor. DW0-1: sequence id. */
  create: { opcode: 0x81, name: 'KV Create' },
  /** CDW10-11 sequence, CDW12 kvTransferBits, CDW13 position, CDW14 tokens. Data: K rows, then V rows. DW0: length. */
  append: { opcode: 0x85, name: 'KV Append', deviceLatency: true },
  /** CDW10-11 source, CDW12 tokens per layer to share (ALL_TOKENS: all). Data: createDescriptor. DW0-1: new id. */
  fork: { opcode: 0x89, name: 'KV Fork' },
  /** CDW10-11 sequence, CDW12 layer or ALL_LAYERS, CDW13 new length. */
  truncate: { opcode: 0x8c, name: 'KV Truncate', deviceLatency: true },
  /** CDW10-11 sequence. */
  reclaim: { opcode: 0x90, name: 'KV Reclaim', deviceLatency: true },
  /** CDW10-11 sequence, CDW12 querySelectors. */
  query: { opcode: 0x92, name: 'KV Query', deviceLatency: true },
  /** CDW10-11 sequence, CDW12 kvTransferBits, CDW13 first token, CDW14 tokens, CDW15 first head | head count << 16 (0: all). */
  readBack: { opcode: 0x96, name: 'KV Read Back', deviceLatency: true },
  /** Data: attendHeader, attendEntry..., queries. Outputs go to regions or result slots. */
  attend: { opcode: 0xc1, name: 'ATTN' },
  /** CDW10 slot, CDW11 byte offset, CDW12 bit 0: keep the slot. Returns the slot's bytes and frees it. */
  attendResult: { opcode: 0xc2, name: 'ATTN Result', deviceLatency: true },
  /** As attend, data in the capsule; CDW10: bytes to return. Outputs of kind `exchange` come back as data. */
  attendExchange: { opcode: 0xc3, name: 'ATTN Exchange' },
} as const satisfies Record<string, OpcodeRow>;

/** Fabrics commands: one opcode, the type in byte 4 of the submission entry. */
export const FABRICS_OPCODE = 0x7f;
export const fabricsTypes = {
  propertySet: { opcode: 0x00, name: 'Property Set' },
  connect: { opcode: 0x01, name: 'Connect' },
  propertyGet: { opcode: 0x04, name: 'Property Get' },
  /** Data: a message of `authentication.ts`. */
  authenticationSend: { opcode: 0x05, name: 'Authentication Send' },
  /** Returns a message of `authentication.ts`, zeros behind it. */
  authenticationReceive: { opcode: 0x06, name: 'Authentication Receive' },
  disconnect: { opcode: 0x08, name: 'Disconnect' },
} as const satisfies Record<string, OpcodeRow>;

export const directionOf = (opcode: number): number => opcode & 3;
