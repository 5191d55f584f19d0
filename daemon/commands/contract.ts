/**
 * What a command handler is given and what it answers. Handlers know no sockets and no queues: the controller gives
 * them the submission entry, the host's data, and the rooms they work on.
 */
import type { StructValue } from '../../spec/struct.ts';
import type { submissionEntry } from '../../spec/submission-entry.ts';
import type { Arena } from '../base/arena.ts';

export type SubmissionEntry = StructValue<(typeof submissionEntry)['fields']>;

/** A memory region of one association. Bytes move by pread and pwrite on its descriptor, never through a mapping. */
export interface MemoryRegion {
  readonly key: number;
  readonly sizeBytes: number;
  readonly path: string;
  /** DriveError sglDataBlock outside the region, or where a client has shortened the file. */
  read(offset: number, target: Uint8Array): Promise<void>;
  write(offset: number, source: Uint8Array): Promise<void>;
}

/** Result slots of one association: bounded in number and bytes. */
export interface ResultSlots {
  /** DriveError slotLimit, slotInUse. The slot is taken until `take` or `abandon`. */
  claim(slot: number, sizeBytes: number): void;
  fill(slot: number, bytes: Uint8Array): void;
  abandon(slot: number): void;
  /** DriveError slotEmpty. */
  read(slot: number): Uint8Array;
  free(slot: number): void;
}

/** What a host has on this drive for as long as it is connected. */
export interface Association {
  readonly controllerId: number;
  readonly hostNqn: string;
  /** DriveError sglDataBlock: unknown key. Keys of other associations are unknown. */
  region(key: number): MemoryRegion;
  createRegion(sizeBytes: number): Promise<MemoryRegion>;
  deleteRegion(key: number): Promise<void>;
  readonly slots: ResultSlots;
}

/** The command's data, wherever it lies: in the capsule, on the socket, or in a region that its keyed SGL names. */
export interface CommandData {
  /** Length that the command's SGL states. */
  readonly lengthBytes: number;
  /** Copies the host's data [offset, offset + target.length) into `target`. Host-to-controller commands. */
  read(target: Uint8Array, offset?: number): Promise<void>;
  /** Gives data to the host, at most once per command. Controller-to-host commands. */
  write(source: Uint8Array): Promise<void>;
}

export interface CommandContext {
  readonly entry: SubmissionEntry;
  /** The 64 bytes themselves. */
  readonly entryBytes: Uint8Array;
  readonly association: Association;
  readonly data: CommandData;
  readonly arena: Arena;
  /** Aborted when the association ends. */
  readonly signal: AbortSignal;
}

/** DW0 and DW1 of a successful completion. Failures are DriveError. */
export interface CommandResult {
  readonly dw0: number;
  readonly dw1: number;
}

export type CommandHandler = (context: CommandContext) => CommandResult | Promise<CommandResult>;
