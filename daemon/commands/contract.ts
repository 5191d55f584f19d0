/**
 * What a command handler is given and what it answers. Handlers know no sockets and no queues: the controller gives
 * them the submission entry, the host's data, and the rooms they work on.
 */
import type { kvNamespace } from '../../spec/identify-kv.ts';
import type { limits } from '../../spec/limits.ts';
import type { driveStatistics, enduranceGroupLog, smartLog } from '../../spec/log-pages.ts';
import type { OpcodeRow } from '../../spec/opcodes.ts';
import type { StructValue } from '../../spec/struct.ts';
import type { AttentionEngine } from '../attention/contract.ts';
import type { DeviceJob } from '../timing/device-job.ts';
import type { Arena } from '../base/arena.ts';
import type { BlockNamespace, Durability, UserDataEraser } from '../ftl/contract.ts';
import type { HostRows, KvStore } from '../kv/contract.ts';
import type { NamespaceGate } from './namespace-gate.ts';

/** Every bound of `spec/limits.ts`; tests lower single ones. */
export type Limits = { readonly [K in keyof typeof limits]: number };

/** Who the drive is: what Identify says and never changes while it runs. */
export interface SubsystemIdentity {
  /** ASCII, at most 20 characters. */
  readonly serial: string;
  /** ASCII, at most 40 characters. */
  readonly model: string;
  /** ASCII, at most 8 characters. */
  readonly firmware: string;
  readonly subsystemNqn: string;
  /** 16 bytes; the namespaces' NGUIDs and UUIDs are derived from it. */
  readonly uuid: Uint8Array;
  /** Product version and build, at most 64 bytes. */
  readonly build: string;
  readonly pageSizeBytes: number;
  readonly kernelSet: string;
  readonly kernelIsa: string;
  readonly computeWorkerCount: number;
}

/**
 * What the rooms below know about themselves, as the fields of the structures that Identify and Get Log Page return.
 * Fields left out are zero; what only the front of the drive counts (link and region bytes, commands) is added there.
 */
export interface DriveStatus {
  /** Log page 02h. */
  health(): Partial<StructValue<(typeof smartLog)['fields']>>;
  /** Log page 09h. */
  endurance(): Partial<StructValue<(typeof enduranceGroupLog)['fields']>>;
  /** So many erase blocks are bad that nothing more is written. */
  isReadOnly(): boolean;
  /** Log page C0h. */
  statistics(): Partial<StructValue<(typeof driveStatistics)['fields']>>;
  /** Identify CNS 05h of the KV-cache namespace. */
  kvNamespace(): Partial<StructValue<(typeof kvNamespace)['fields']>>;
  /** LBAs of the block namespace that hold data. */
  blockUsedLbaCount(): number;
}

/** What the front counts, since start. */
export interface FrontCounters {
  linkReceivedBytes: number;
  linkSentBytes: number;
  regionReadBytes: number;
  regionWrittenBytes: number;
  commandsFailed: number;
  attendCommands: number;
  attendEntries: number;
  attendFlashTokens: number;
  attendBufferedTokens: number;
  blockReadCommands: number;
  blockWriteCommands: number;
  blockReadBytes: number;
  blockWrittenBytes: number;
  kvAppendedBytes: number;
  kvReadBackBytes: number;
  /** Outputs put into result slots. */
  slotWrittenBytes: number;
}

export const createFrontCounters = (): FrontCounters => ({
  linkReceivedBytes: 0,
  linkSentBytes: 0,
  regionReadBytes: 0,
  regionWrittenBytes: 0,
  commandsFailed: 0,
  attendCommands: 0,
  attendEntries: 0,
  attendFlashTokens: 0,
  attendBufferedTokens: 0,
  blockReadCommands: 0,
  blockWriteCommands: 0,
  blockReadBytes: 0,
  blockWrittenBytes: 0,
  kvAppendedBytes: 0,
  kvReadBackBytes: 0,
  slotWrittenBytes: 0,
});

/**
 * The submission entry, decoded once. It belongs to the queue and is used again for another command when the handler
 * has settled: a handler must not keep it.
 */
export interface SubmissionEntry {
  readonly opcode: number;
  readonly flags: number;
  readonly commandId: number;
  readonly namespaceId: number;
  readonly cdw2: number;
  readonly cdw3: number;
  readonly cdw10: number;
  readonly cdw11: number;
  readonly cdw12: number;
  readonly cdw13: number;
  readonly cdw14: number;
  readonly cdw15: number;
}

/** A memory region of one association, in a file that its host may change and shorten at any time. */
export interface MemoryRegion {
  readonly key: number;
  readonly sizeBytes: number;
  readonly path: string;
  /** DriveError sglDataBlock outside the region. For checks before any work. */
  check(offset: number, lengthBytes: number): void;
  /** DriveError sglDataBlock outside the region, or where a client has shortened the file. */
  read(offset: number, target: Uint8Array): Promise<void> | void;
  write(offset: number, source: Uint8Array): Promise<void> | void;
  /**
   * For a command that reads `lengthBytes` bytes from `offset` on where they lie: counts them as read. The region stays as it
   * is until `release`, even if it is deleted meanwhile. DriveError as `check`: it may have been deleted since the command came.
   */
  hold(offset: number, lengthBytes: number): HeldRegion;
}

/** A region that a command uses. */
export interface HeldRegion extends HostRows {
  /** DriveError sglDataBlock outside the region. */
  check(offset: number, lengthBytes: number): void;
  release(): void;
}

/** Result slots of one association: bounded in number and bytes. A slot is empty, claimed, or filled. */
export interface ResultSlots {
  /** Takes an empty slot. DriveError slotLimit, slotInUse. Ends with `commit` or `abandon`. */
  claim(slot: number, sizeBytes: number): void;
  /** Into a claimed slot. */
  write(slot: number, offset: number, source: Uint8Array): void;
  commit(slot: number): void;
  abandon(slot: number): void;
  /** Bytes of a filled slot. DriveError slotEmpty, slotLimit. */
  read(slot: number): Uint8Array;
  /** Frees a filled slot. */
  free(slot: number): void;
}

/** Features whose value is a number: CDW11 as last set. */
export type NumberFeature =
  | 'arbitration'
  | 'powerManagement'
  | 'errorRecovery'
  | 'volatileWriteCache'
  | 'writeAtomicity'
  | 'asyncEventConfiguration'
  | 'commandSetProfile';

export const defaultNumbers: Readonly<Record<NumberFeature, number>> = {
  arbitration: 0,
  powerManagement: 0,
  errorRecovery: 0,
  volatileWriteCache: 1,
  writeAtomicity: 0,
  asyncEventConfiguration: 0,
  commandSetProfile: 0,
};

/** Kelvin: a temperature at or beyond one of them is a warning. */
export const defaultThresholds: Readonly<{ over: number; under: number }> = { over: 0xffff, under: 0 };

/** Settings of one controller that Set Features changes; they end with it. */
export interface ControllerFeatures {
  readonly numbers: Record<NumberFeature, number>;
  /** False: every write is as if it had FUA. */
  readonly writeCache: boolean;
  readonly temperatureThresholds: { over: number; under: number };
  /** Host Behavior Support: the host takes command retry delays. */
  commandRetryDelays: boolean;
  timestamp(): { milliseconds: number; isSetByHost: boolean };
  setTimestamp(milliseconds: number): void;
  keepAliveTimeoutMs(): number;
  /** 0: off. Takes effect at once. DriveError invalidField above the limit. */
  setKeepAliveTimeoutMs(timeoutMs: number): void;
  readonly ioQueueCountMax: number;
  /** True once an I/O queue exists: Number of Queues may no longer change. */
  hasIoQueues(): boolean;
}

export interface NetworkAddress {
  /** IPv4 or IPv6 address. */
  readonly host: string;
  readonly port: number;
}

/** One entry of the discovery log, as far as it is not the same for all of ours. */
export interface DiscoveryRecord {
  readonly subtype: 'referral' | 'nvm';
  readonly nqn: string;
  readonly address: NetworkAddress;
}

/** What a discovery controller tells. */
export interface DiscoverySource {
  /** Grows whenever the records change. */
  readonly generation: number;
  /** As a host sees them whose connection ends at `local` on our side. */
  records(local: NetworkAddress | undefined): readonly DiscoveryRecord[];
  /** Registrations of others; undefined: none are taken. */
  readonly registrations: DiscoveryRegistrations | undefined;
}

/** Records that an association registers live as long as it does. */
export interface DiscoveryRegistrations {
  /**
   * Adds records of one entity, or replaces them. True for the first registration of an association, which the caller has
   * to end. DriveError discoveryLimit.
   */
  register(owner: object, entityNqn: string, records: readonly DiscoveryRecord[]): boolean;
  /** False: the entity has registered nothing by this association. */
  deregister(owner: object, entityNqn: string): boolean;
  /** The association is over. */
  ended(owner: object): void;
}

/** What a controller's host waits to hear of. */
export interface AsyncEventRequests {
  /** Resolves when there is an event. DriveError asyncEventLimit, or aborted. */
  request(commandId: number): Promise<CommandResult>;
}

/** The errors of a controller since it connected. */
export interface ErrorLog {
  readonly count: number;
  /** Log page 01h. */
  page(): Uint8Array;
}

/** What a host has on this drive for as long as it is connected. */
export interface Association {
  readonly controllerId: number;
  readonly hostNqn: string;
  /** First 8 bytes of the SHA-256 of the host NQN: owner of the sequences it creates. */
  readonly hostHash: bigint;
  /** Host identifier, 16 bytes. */
  readonly hostId: Uint8Array;
  readonly features: ControllerFeatures;
  readonly events: AsyncEventRequests;
  readonly errors: ErrorLog;
  /** Namespaces that others changed since the log page of them was read, ascending. */
  changedNamespaces(): number[];
  /** The host has read a log page, and has not asked that its events be retained. */
  logPageRead(lid: number): void;
  /** Where on the drive's side the admin connection ends; undefined: on a Unix socket. */
  readonly local: NetworkAddress | undefined;
  /** A feature was set on which events depend. */
  settingsChanged(): void;
  /** Ends a command of this controller that has not started or waits for an event. False: it goes on, or is not there. */
  abort(queueId: number, commandId: number): boolean;
  /** DriveError sglDataBlock: unknown key. Keys of other associations are unknown. */
  region(key: number): MemoryRegion;
  createRegion(sizeBytes: number): Promise<MemoryRegion>;
  deleteRegion(key: number): Promise<void>;
  readonly slots: ResultSlots;
  /** Whether the host may name its own sequences only. */
  readonly isConfined: boolean;
  /** The sequences as this host may see them. */
  readonly kv: KvStore;
}

/** The command's data, wherever it lies: in the capsule, on the socket, or in a region that its keyed SGL names. */
export interface CommandData {
  /** Length that the command's SGL states. */
  readonly lengthBytes: number;
  /**
   * Copies the host's data [offset, offset + target.length) into `target`. Host-to-controller commands. Over a socket
   * offsets must ascend (hosts that can't seek in their data refuse anything else), so read the data in one call.
   */
  read(target: Uint8Array, offset?: number): Promise<void> | void;
  /**
   * The region that all of the host's data lies in, at `offset`, for one who reads it there instead of by `read`; undefined:
   * there is none, or it is too much to be read at once. Ends with `release`. DriveError as MemoryRegion's.
   */
  hold(): { readonly region: HeldRegion; readonly offset: number } | undefined;
  /** All of the host's data where it lies, if it came with the command; valid until the handler returns or waits. */
  inPlace(): Uint8Array | undefined;
  /**
   * Where `lengthBytes` of data for the host may be put, instead of `write`, by a handler that does not wait; undefined:
   * there is no such place. They are given by `placed`, before anything else happens; without it, nothing is.
   */
  place(lengthBytes: number): Uint8Array | undefined;
  placed(): void;
  /**
   * Gives data to the host, once per command. When it returns or resolves, the command may complete. Without `onTaken`
   * `source` may be changed then; with it, `source` must stay as it is until `onTaken` is called, which happens exactly
   * once, also where the connection ends: a completion then need not wait until a slow socket has taken the data.
   */
  write(source: Uint8Array, onTaken?: () => void): Promise<void> | void;
}

export interface CommandContext {
  readonly entry: SubmissionEntry;
  readonly association: Association;
  readonly data: CommandData;
  /** Aborted when the queue or the association ends. */
  readonly signal: AbortSignal;
  /** What the command does in device time. It goes on with the next command when the handler has settled. */
  readonly job: DeviceJob;
}

/** DW0 and DW1 of a successful completion. Failures are DriveError. */
export interface CommandResult {
  readonly dw0: number;
  readonly dw1: number;
}

export const SUCCESS: CommandResult = Object.freeze({ dw0: 0, dw1: 0 });

/** Throws or rejects with DriveError for everything the host can bring about. */
export type CommandHandler = (context: CommandContext) => CommandResult | Promise<CommandResult>;

export const dwordNames = ['cdw2', 'cdw3', 'cdw10', 'cdw11', 'cdw12', 'cdw13', 'cdw14', 'cdw15'] as const;
export type DwordName = (typeof dwordNames)[number];

/** One command: its row of the opcode table, which bits a host may set, and what to do. */
export interface CommandDefinition {
  readonly row: OpcodeRow;
  /** Bits of each dword that mean something; a set bit outside them is invalidField. Left out: none. */
  readonly allowedBits: Partial<Record<DwordName, number>>;
  /**
   * I/O commands: whether NSID FFFFFFFFh (all namespaces) is taken. Admin commands: `none` wants NSID 0, `any` leaves
   * the check to the handler.
   */
  readonly namespace: 'one' | 'oneOrAll' | 'none' | 'any';
  readonly run: CommandHandler;
}

export interface CommandModules {
  readonly arena: Arena;
  readonly kv: KvStore;
  readonly blocks: BlockNamespace;
  readonly durability: Durability;
  readonly userData: UserDataEraser;
  readonly attention: AttentionEngine;
  readonly status: DriveStatus;
  /** By namespace id. */
  readonly gates: ReadonlyMap<number, NamespaceGate>;
  /** Other hosts are told that a namespace is not what it was. */
  readonly namespaceChanged: (namespaceId: number, by: Association) => void;
  /** Handlers add to it. */
  readonly counters: FrontCounters;
  /** The same, with what the transport counts brought up to date. */
  readonly frontCounters: () => Readonly<FrontCounters>;
}

/** What the commands of a discovery controller work on. */
export interface DiscoveryModules {
  readonly source: DiscoverySource;
}

export interface DiscoveryOptions {
  readonly identity: Pick<SubsystemIdentity, 'serial' | 'model' | 'firmware'>;
  readonly limits: Limits;
}

export interface CommandOptions {
  readonly identity: SubsystemIdentity;
  readonly limits: Limits;
}
