/**
 * What a command may come to, by the pages of spec/ alone: every fault that it has, and what it does if it has none. Nothing
 * here knows in which order the drive looks for faults.
 */
import type { ErrorCode } from '../../../spec/errors.ts';
import { BLOCK_NSID, KV_CACHE_NSID } from '../../../spec/kv-commands.ts';
import { adminOpcodes, discoveryOpcodes, kvOpcodes, nvmOpcodes } from '../../../spec/opcodes.ts';
import type { DriveModel, HostModel } from './drive-model.ts';
import { type Dwords, dwords, type Submission } from './submission.ts';
import type { Verdict } from './verdict.ts';

export const ALL = 0xffff_ffff;
export const BROADCAST_NSID = ALL;

/** A command on its way, and everything that its verdict may depend on. */
export interface RuleContext {
  readonly submission: Submission;
  /** What the host sends, as long as its SGL says; undefined: it sends nothing. */
  readonly data: Uint8Array | undefined;
  readonly drive: DriveModel;
  readonly host: HostModel;
  readonly queueId: number;
  readonly verdict: Verdict;
  /** Reads a region's file as it is. */
  readRegion(key: number, offset: number, lengthBytes: number): Uint8Array;
}

export interface CommandRule {
  /** Bits of each dword that mean something. */
  readonly uses: Partial<Dwords>;
  /** Of an admin command: whether it wants NSID 0. */
  readonly wantsNoNamespace?: boolean;
  /** Adds what is wrong, and what follows if nothing is. */
  judge(context: RuleContext): void;
}

export type RuleTable = Readonly<Record<number, CommandRule>>;

export interface RuleTables {
  readonly admin: RuleTable;
  readonly nvm: RuleTable;
  readonly kv: RuleTable;
  readonly discovery: RuleTable;
  /** Of a discovery service that takes registrations. */
  readonly central: RuleTable;
}

/** The command that an entry names, or why there is none. */
function ruleOf(
  tables: RuleTables,
  host: HostModel,
  queueId: number,
  { opcode, namespaceId }: Submission['entry'],
): CommandRule | readonly ErrorCode[] {
  if (queueId === 0) return tables[host.kind === 'io' ? 'admin' : host.kind][opcode] ?? ['invalidOpcode'];
  if (namespaceId === BLOCK_NSID) return tables.nvm[opcode] ?? ['invalidOpcode'];
  if (namespaceId === KV_CACHE_NSID) return tables.kv[opcode] ?? ['invalidOpcode'];
  if (namespaceId !== BROADCAST_NSID) return ['invalidNamespace', 'invalidOpcode'];
  // Of all namespaces at once there is Flush.
  return opcode === nvmOpcodes.flush.opcode ? tables.nvm[opcode]! : ['invalidNamespace', 'invalidOpcode'];
}

/** Puts into `verdict` what the command may come to. */
export function judge(tables: RuleTables, context: RuleContext): void {
  const { submission, host, queueId, verdict } = context;
  const rule = ruleOf(tables, host, queueId, submission.entry);
  verdict.fault(...submission.faults);
  if (Array.isArray(rule)) {
    verdict.fault(...(rule as readonly ErrorCode[]));
    return;
  }
  const { uses, wantsNoNamespace, judge: own } = rule as CommandRule;
  const { entry, place } = submission;
  for (const name of dwords) if ((entry[name] & ~(uses[name] ?? 0)) !== 0) verdict.fault('invalidField');
  if (wantsNoNamespace === true && entry.namespaceId !== 0) verdict.fault('invalidNamespace');
  if (place.kind === 'keyed') {
    verdict.touch(`region ${place.key}`);
    const region = host.regions.get(place.key);
    if (region === undefined || place.offset + submission.lengthBytes > region.sizeBytes) verdict.fault('sglDataBlock');
  }
  verdict.isFramed = verdict.faults.size === 0;
  own(context);
}

const names = [
  ['admin', adminOpcodes],
  ['nvm', nvmOpcodes],
  ['kv', kvOpcodes],
  ['discovery', discoveryOpcodes],
] as const;

/** Names of the commands that an entry may be meant as, for a queue of which it is not known what it is. */
export function cellsOf(
  sets: readonly ('admin' | 'nvm' | 'kv' | 'discovery')[],
  opcode: number,
  status: ErrorCode | 'success',
): string[] {
  const cells: string[] = [];
  for (const [set, table] of names) {
    if (!sets.includes(set)) continue;
    const row = Object.values<{ opcode: number; name: string }>(table).find((one) => one.opcode === opcode);
    if (row !== undefined) cells.push(`${set} ${row.name} ${status}`);
  }
  return cells;
}

/** Sets that an entry on an I/O queue may be of. */
export function setsOfNamespace(namespaceId: number): readonly ('nvm' | 'kv')[] {
  if (namespaceId === BLOCK_NSID) return ['nvm'];
  if (namespaceId === KV_CACHE_NSID) return ['kv'];
  return ['nvm', 'kv'];
}
