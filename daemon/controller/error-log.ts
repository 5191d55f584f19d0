import type { ErrorCode } from '../../spec/errors.ts';
import { BLOCK_NSID, KV_CACHE_CSI, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { errorInformationEntry } from '../../spec/log-pages.ts';
import { SGL_FLAGS } from '../../spec/sgl.ts';
import { submissionEntry } from '../../spec/submission-entry.ts';
import { dwordNames, type ErrorLog as ErrorLogContract, type Limits } from '../commands/contract.ts';
import type { RegisteredCommand } from '../commands/registry.ts';
import type { CommandSlot } from './command-slot.ts';

/** Says that an error is of no place in the command. */
const NO_LOCATION = 0xffff;
const TRTYPE_TCP = 3;
const PAGE_VERSION = 1;
const BITS_PER_BYTE = 8;
const at = submissionEntry.offsetOf;

/** The last errors of one controller, for log page 01h. */
export class ErrorLog implements ErrorLogContract {
  readonly #entryCountMax: number;
  /** Encoded entries, newest first. */
  readonly #entries: Uint8Array[] = [];
  #count = 0;

  constructor({ limits }: { limits: Limits }) {
    this.#entryCountMax = limits.errorLogEntryCountMax;
  }

  get count(): number {
    return this.#count;
  }

  /** `status` is the status field of the completion. */
  record(slot: CommandSlot, queueId: number, status: number, code: ErrorCode): void {
    this.#count++;
    const isIo = queueId !== 0;
    const hasLba = isIo && slot.namespaceId === BLOCK_NSID;
    const entry = errorInformationEntry.encode({
      errorCount: this.#count,
      sqid: queueId,
      cmdid: slot.commandId,
      statusField: status,
      paramErrorLoc: errorLocation(slot, code),
      lba: hasLba ? Math.min(slot.cdw11 * 0x1_0000_0000 + slot.cdw10, Number.MAX_SAFE_INTEGER) : 0,
      nsid: slot.namespaceId,
      trtype: TRTYPE_TCP,
      csi: isIo && slot.namespaceId === KV_CACHE_NSID ? KV_CACHE_CSI : 0,
      opcode: slot.opcode,
      logPageVersion: PAGE_VERSION,
    });
    this.#entries.unshift(entry);
    if (this.#entries.length > this.#entryCountMax) this.#entries.pop();
  }

  page(): Uint8Array {
    const page = new Uint8Array(this.#entryCountMax * errorInformationEntry.sizeBytes);
    this.#entries.forEach((entry, index) => page.set(entry, index * errorInformationEntry.sizeBytes));
    return page;
  }
}

/** Byte in bits 7:0 and bit in bits 10:8 of what is wrong in the submission entry, as far as the code tells. */
export function errorLocation(slot: CommandSlot, code: ErrorCode): number {
  switch (code) {
    case 'invalidOpcode':
      return at.opcode;
    case 'commandIdConflict':
      return at.commandId;
    case 'invalidNamespace':
      return at.namespaceId;
    case 'lbaRange':
    case 'invalidLogPage':
    case 'featureNotSaveable':
    case 'featureNotChangeable':
      return at.cdw10;
    case 'invalidField':
      return strayLocation(slot, slot.definition);
    default:
      return code.startsWith('sgl') ? at.sgl : NO_LOCATION;
  }
}

function strayLocation(slot: CommandSlot, definition: RegisteredCommand | undefined): number {
  if (slot.flags !== SGL_FLAGS) return at.flags;
  const metadata = slot.bytes.subarray(at.metadataPointer, at.sgl).findIndex((byte) => byte !== 0);
  if (metadata >= 0) return at.metadataPointer + metadata;
  if (definition === undefined) return NO_LOCATION;
  for (const [index, name] of dwordNames.entries()) {
    const stray = (slot[name] & (definition.reservedBits[index] as number)) >>> 0;
    if (stray === 0) continue;
    const bit = Math.log2((stray & -stray) >>> 0);
    return (at[name] + Math.floor(bit / BITS_PER_BYTE)) | ((bit % BITS_PER_BYTE) << BITS_PER_BYTE);
  }
  return NO_LOCATION;
}
