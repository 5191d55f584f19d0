/**
 * Names of the NVMe status codes that this drive returns or that a client may meet. Codes of ours (command specific C0h
 * and up) stand in `errors.ts` and are looked up there.
 */
import { type ErrorCode, errorTable } from './errors.ts';

export const statusCodeTypes = {
  generic: 0,
  commandSpecific: 1,
  media: 2,
  path: 3,
  vendor: 7,
} as const;

const generic: Readonly<Record<number, string>> = {
  0x00: 'Successful Completion',
  0x01: 'Invalid Command Opcode',
  0x02: 'Invalid Field in Command',
  0x03: 'Command ID Conflict',
  0x04: 'Data Transfer Error',
  0x05: 'Commands Aborted due to Power Loss Notification',
  0x06: 'Internal Error',
  0x07: 'Command Abort Requested',
  0x08: 'Command Aborted due to SQ Deletion',
  0x09: 'Command Aborted due to Failed Fused Command',
  0x0a: 'Command Aborted due to Missing Fused Command',
  0x0b: 'Invalid Namespace or Format',
  0x0c: 'Command Sequence Error',
  0x0d: 'Invalid SGL Segment Descriptor',
  0x0e: 'Invalid Number of SGL Descriptors',
  0x0f: 'Data SGL Length Invalid',
  0x10: 'Metadata SGL Length Invalid',
  0x11: 'SGL Descriptor Type Invalid',
  0x12: 'Invalid Use of Controller Memory Buffer',
  0x13: 'PRP Offset Invalid',
  0x14: 'Atomic Write Unit Exceeded',
  0x15: 'Operation Denied',
  0x16: 'SGL Offset Invalid',
  0x18: 'Host Identifier Inconsistent Format',
  0x19: 'Keep Alive Timer Expired',
  0x1a: 'Keep Alive Timeout Invalid',
  0x1b: 'Command Aborted due to Preempt and Abort',
  0x1c: 'Sanitize Failed',
  0x1d: 'Sanitize In Progress',
  0x1e: 'SGL Data Block Granularity Invalid',
  0x1f: 'Command Not Supported for Queue in CMB',
  0x20: 'Namespace is Write Protected',
  0x21: 'Command Interrupted',
  0x22: 'Transient Transport Error',
  0x24: 'Admin Command Media Not Ready',
  0x80: 'LBA Out of Range',
  0x81: 'Capacity Exceeded',
  0x82: 'Namespace Not Ready',
  0x83: 'Reservation Conflict',
  0x84: 'Format In Progress',
};

const commandSpecific: Readonly<Record<number, string>> = {
  0x00: 'Completion Queue Invalid',
  0x01: 'Invalid Queue Identifier',
  0x02: 'Invalid Queue Size',
  0x03: 'Abort Command Limit Exceeded',
  0x05: 'Asynchronous Event Request Limit Exceeded',
  0x06: 'Invalid Firmware Slot',
  0x07: 'Invalid Firmware Image',
  0x08: 'Invalid Interrupt Vector',
  0x09: 'Invalid Log Page',
  0x0a: 'Invalid Format',
  0x0b: 'Firmware Activation Requires Conventional Reset',
  0x0c: 'Invalid Queue Deletion',
  0x0d: 'Feature Identifier Not Saveable',
  0x0e: 'Feature Not Changeable',
  0x0f: 'Feature Not Namespace Specific',
  0x14: 'Overlapping Range',
  0x15: 'Namespace Insufficient Capacity',
  0x16: 'Namespace Identifier Unavailable',
  0x18: 'Namespace Already Attached',
  0x19: 'Namespace Is Private',
  0x1a: 'Namespace Not Attached',
  0x1f: 'Invalid Controller Identifier',
  0x29: 'I/O Command Set Not Supported',
  0x2a: 'I/O Command Set Not Enabled',
  0x2b: 'I/O Command Set Combination Rejected',
  0x2c: 'Invalid I/O Command Set',
  0x2d: 'Identifier Unavailable',
  0x2f: 'Invalid Discovery Information',
  0x30: 'Zoning Data Structure Locked',
  0x31: 'Zoning Data Structure Not Found',
  0x32: 'Insufficient Discovery Resources',
};

/** Command specific codes 80h to BFh of an I/O command; Fabrics commands use the same numbers (below). */
const nvmSpecific: Readonly<Record<number, string>> = {
  0x80: 'Conflicting Attributes',
  0x81: 'Invalid Protection Information',
  0x82: 'Attempted Write to Read Only Range',
  0x83: 'Command Size Limit Exceeded',
};

const fabricsSpecific: Readonly<Record<number, string>> = {
  0x80: 'Connect Incompatible Format',
  0x81: 'Connect Controller Busy',
  0x82: 'Connect Invalid Parameters',
  0x83: 'Connect Restart Discovery',
  0x84: 'Connect Invalid Host',
  0x85: 'Invalid Queue Type',
  0x90: 'Discover Restart',
  0x91: 'Authentication Required',
};

const media: Readonly<Record<number, string>> = {
  0x80: 'Write Fault',
  0x81: 'Unrecovered Read Error',
  0x82: 'End-to-end Guard Check Error',
  0x83: 'End-to-end Application Tag Check Error',
  0x84: 'End-to-end Reference Tag Check Error',
  0x85: 'Compare Failure',
  0x86: 'Access Denied',
  0x87: 'Deallocated or Unwritten Logical Block',
};

const path: Readonly<Record<number, string>> = {
  0x00: 'Internal Path Error',
  0x01: 'Asymmetric Access Persistent Loss',
  0x02: 'Asymmetric Access Inaccessible',
  0x03: 'Asymmetric Access Transition',
  0x60: 'Controller Pathing Error',
  0x70: 'Host Pathing Error',
  0x71: 'Command Aborted By Host',
};

const key = (sct: number, sc: number): number => (sct << 8) | sc;

const codeByStatus = new Map<number, ErrorCode>();
for (const [code, row] of Object.entries(errorTable) as [ErrorCode, (typeof errorTable)[ErrorCode]][]) {
  const other = codeByStatus.get(key(row.sct, row.sc));
  if (other !== undefined) throw new Error(`errors ${other} and ${code} share one NVMe status`);
  codeByStatus.set(key(row.sct, row.sc), code);
}

/** The row of our error table that has this status, if there is one. */
export const errorCodeOf = (sct: number, sc: number): ErrorCode | undefined => codeByStatus.get(key(sct, sc));

/** Name of a status, for people. `fabrics`: of a Fabrics command, whose specific codes overlap those of the NVM set. */
export function statusName(sct: number, sc: number, fabrics = false): string {
  const found = standardName(sct, sc, fabrics);
  if (found !== undefined) return found;
  const code = errorCodeOf(sct, sc);
  if (code !== undefined) return errorTable[code].text;
  return `status ${sct.toString(16)}h/${sc.toString(16).padStart(2, '0')}h`;
}

function standardName(sct: number, sc: number, fabrics: boolean): string | undefined {
  switch (sct) {
    case statusCodeTypes.generic:
      return generic[sc];
    case statusCodeTypes.commandSpecific:
      return commandSpecific[sc] ?? (fabrics ? fabricsSpecific[sc] : nvmSpecific[sc]);
    case statusCodeTypes.media:
      return media[sc];
    case statusCodeTypes.path:
      return path[sc];
    default:
      return undefined;
  }
}
