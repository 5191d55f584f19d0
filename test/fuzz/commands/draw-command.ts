/** Commands as inputs: on some queue, their data somewhere, and now and then something wrong with them. */
import { submissionEntry } from '../../../spec/submission-entry.ts';
import type { Fields, Struct } from '../../../spec/struct.ts';
import { attendEntry, attendHeader, createDescriptor } from '../../../spec/kv-commands.ts';
import { adminOpcodes, directionOf, kvOpcodes } from '../../../spec/opcodes.ts';
import { encodeSgl, type Sgl } from '../../../spec/sgl.ts';
import { entryBytes } from '../../controller/submissions.ts';
import type { Prng } from '../../sim/prng.ts';
import { drawNumber, EDGES, mutateBytes, mutateLength, mutateStruct } from '../mutate.ts';
import { type BuiltCommand, drawRegion } from './built-command.ts';
import { drawAdmin } from './draw-admin.ts';
import { drawKv } from './draw-kv.ts';
import { drawNvm } from './draw-nvm.ts';
import { drawRegistration } from './draw-registration.ts';
import type { FuzzDrive, FuzzQueue, SessionKind } from './fuzz-drive.ts';
import type { Trouble } from './troubled-stores.ts';

export interface CommandInput {
  readonly do: 'command';
  /** Index of its queue. */
  readonly queue: number;
  readonly entry: Uint8Array;
  readonly capsule: Uint8Array;
  /** What the host sends if it is asked, or what it puts into the region that the entry names. */
  readonly data: Uint8Array;
  /** Of the event loop, for each of its transfers. */
  readonly turns: number;
  readonly isIntact: boolean;
  /** The next input does not wait until it is complete. */
  readonly isJoined: boolean;
}

export type Input =
  | CommandInput
  | { readonly do: 'advance'; readonly ms: number }
  | { readonly do: 'trouble'; readonly trouble: Trouble }
  | { readonly do: 'reconnect' };

const queueWeights: Readonly<Record<FuzzQueue['name'], number>> = {
  admin: 16,
  io: 40,
  'other io': 8,
  guest: 6,
  'guest io': 14,
  disabled: 2,
  unconnected: 4,
  unproven: 3,
  'unproven io': 4,
  discovery: 4,
  central: 5,
  'guest central': 3,
  'unproven central': 2,
};

const NONE = new Uint8Array(0);
const IN_CAPSULE_MAX = { io: 32_768, admin: 8192 } as const;

function drawBuilt(random: Prng, drive: FuzzDrive, { name, queueId, host }: FuzzQueue): BuiltCommand {
  const { model } = drive;
  if (name === 'unconnected') {
    return random.pick([
      () => drawAdmin(random, host),
      () => drawRegistration(random, host),
      () => drawKv(random, model, host),
      () => drawNvm(random, model),
    ])();
  }
  if (queueId === 0) return drawAdmin(random, host);
  return random.chance(0.65) ? drawKv(random, model, host) : drawNvm(random, model);
}

/** Where the data of a command is. */
function drawSgl(
  random: Prng,
  { opcode, send, take }: BuiltCommand,
  queue: FuzzQueue,
): { sgl: Sgl; isInCapsule: boolean } {
  const length = send?.length ?? take ?? 0;
  if (length === 0) return { sgl: { kind: 'none' }, isInCapsule: false };
  const isSent = (directionOf(opcode) & 1) !== 0;
  const region = random.chance(0.15) ? drawRegion(random, queue.host, length) : undefined;
  if (region) return { sgl: { kind: 'keyed', ...region, length }, isInCapsule: false };
  const isSmall = length <= (queue.queueId === 0 ? IN_CAPSULE_MAX.admin : IN_CAPSULE_MAX.io);
  if (isSent && isSmall && random.chance(0.6))
    return { sgl: { kind: 'inCapsule', offset: 0, length }, isInCapsule: true };
  return { sgl: { kind: 'transport', length }, isInCapsule: false };
}

const descriptors: Readonly<Record<number, Struct<Fields>>> = {
  [kvOpcodes.create.opcode]: createDescriptor as unknown as Struct<Fields>,
  [kvOpcodes.fork.opcode]: createDescriptor as unknown as Struct<Fields>,
  [kvOpcodes.attend.opcode]: attendHeader as unknown as Struct<Fields>,
  [kvOpcodes.attendExchange.opcode]: attendHeader as unknown as Struct<Fields>,
};

/** Something in the data is wrong: a field of its descriptor, or bytes anywhere. */
function mutateData(random: Prng, opcode: number, data: Uint8Array): void {
  const descriptor = descriptors[opcode];
  if (descriptor === undefined || data.length < descriptor.sizeBytes || random.chance(0.2)) {
    mutateBytes(random, data);
    return;
  }
  const isAttend = descriptor.sizeBytes === attendHeader.sizeBytes;
  const entryAt = attendHeader.sizeBytes + attendEntry.sizeBytes * random.below(2);
  if (isAttend && random.chance(0.75) && data.length >= entryAt + attendEntry.sizeBytes) {
    mutateStruct(random, data, attendEntry as unknown as Struct<Fields>, entryAt);
  } else mutateStruct(random, data, descriptor);
}

const dwordOffsets = [4, 40, 44, 48, 52, 56, 60] as const;

function mutateEntry(random: Prng, entry: Uint8Array): void {
  switch (random.below(6)) {
    case 0:
      mutateStruct(random, entry, submissionEntry as unknown as Struct<Fields>);
      return;
    case 1:
      mutateBytes(random, entry, 1);
      return;
    case 2: {
      // Another way to say where the data is.
      const length = random.chance(0.5) ? random.pick(EDGES) : random.below(5000);
      const offset = random.chance(0.5) ? 0 : drawNumber(random);
      const sgl: Sgl = random.pick([
        { kind: 'none' },
        { kind: 'transport', length },
        { kind: 'inCapsule', offset, length },
        { kind: 'keyed', key: drawNumber(random), offset, length: length & 0xff_ffff },
      ] as const);
      encodeSgl(sgl, entry, 24);
      return;
    }
    case 3:
      // The length, what must be zero behind it, or the type.
      entry[random.chance(0.5) ? 39 : 32 + random.below(7)] = random.below(256);
      return;
    default: {
      const at = random.pick(dwordOffsets);
      new DataView(entry.buffer).setUint32(at, random.chance(0.5) ? 1 << random.below(32) : drawNumber(random), true);
    }
  }
}

/** What commands that run at once have in common. */
export interface BurstKind {
  /** Queues that they go to; undefined: any. */
  readonly queues: readonly FuzzQueue['name'][] | undefined;
  readonly begins: 'anything' | 'format' | 'eventRequest' | 'transfer';
}

/** Queues of one association, on which commands wait for each other. */
const groups: Partial<Record<SessionKind, readonly (readonly FuzzQueue['name'][])[]>> = {
  quotas: [['guest', 'guest io'], ['guest', 'guest io'], ['guest central']],
  smallBudget: [
    ['admin', 'io'],
    ['admin', 'io'],
    ['admin', 'io'],
    ['admin'],
    ['guest', 'guest io'],
    ['guest', 'guest io'],
    ['discovery'],
    ['central'],
  ],
};

/** Where there is little of something, bursts tell most. */
export const burstChanceOf = (kind: SessionKind): number => (groups[kind] === undefined ? 0.05 : 0.3);

export const drawBurst = (random: Prng, kind: SessionKind): BurstKind => ({
  queues: groups[kind] !== undefined && random.chance(0.85) ? random.pick(groups[kind]) : undefined,
  begins: random.weighted({
    anything: 7,
    format: 2,
    eventRequest: kind === 'quotas' ? 4 : 1,
    transfer: kind === 'smallBudget' ? 20 : 1,
  }),
});

/** What is going on when a command is drawn. */
export interface DrawState {
  /** Of the next command. */
  readonly commandId: number;
  readonly running: readonly { readonly queue: FuzzQueue; readonly commandId: number }[];
}

/** Those of which the other queue knows nothing yet: it will be asked to abort them. */
const isEndless = (opcode: number, queue: FuzzQueue): boolean =>
  queue.queueId === 0 && opcode === adminOpcodes.asyncEventRequest.opcode;

function drawQueue(random: Prng, drive: FuzzDrive, burst: BurstStep | undefined): FuzzQueue {
  const open = drive.queues.filter(({ link }) => link.isOpen);
  const ofBurst = open.filter(({ name }) => burst?.queues?.includes(name) === true);
  const candidates = ofBurst.length > 0 ? ofBurst : open;
  if (burst?.isFirst === true && burst.begins !== 'anything') {
    const admin = candidates.find(({ name }) => name === 'admin' || name === 'guest');
    if (admin !== undefined) return admin;
  }
  // What others are to wait for goes to the last, where most commands have data.
  if (ofBurst.length > 0) return burst?.isFirst && burst.begins === 'transfer' ? ofBurst.at(-1)! : random.pick(ofBurst);
  const weights = Object.fromEntries(candidates.map(({ name }) => [name, queueWeights[name]])) as Record<
    FuzzQueue['name'],
    number
  >;
  const name = random.weighted(weights);
  return candidates.find((one) => one.name === name)!;
}

type BurstStep = BurstKind & { readonly isFirst: boolean };

/** A command that something which runs has to do with, if that is to be. */
function drawRelated(
  random: Prng,
  queue: FuzzQueue,
  { running }: DrawState,
  burst: BurstStep,
): BuiltCommand | undefined {
  if (queue.queueId === 0 && queue.host.kind === 'io' && burst.isFirst && burst.begins === 'format') {
    return { opcode: adminOpcodes.formatNvm.opcode, nsid: random.pick([1, 2, 0xffff_ffff]) };
  }
  if (queue.queueId === 0 && burst.begins === 'eventRequest' && random.chance(burst.isFirst ? 1 : 0.3)) {
    return { opcode: adminOpcodes.asyncEventRequest.opcode };
  }
  const own = running.filter((one) => one.queue.host === queue.host);
  const isWaitedFor = burst.begins === 'transfer';
  if (queue.queueId !== 0 || own.length === 0 || !random.chance(isWaitedFor ? 0.5 : 0.3)) return undefined;
  // The first of them runs.
  const one = random.pick(isWaitedFor && own.length > 1 ? own.slice(1) : own);
  return { opcode: adminOpcodes.abort.opcode, cdw10: one.queue.queueId + one.commandId * 65_536 };
}

const DRAWS_MAX = 20;

/** A command of any kind; one with data, if a burst is to begin so. */
function drawUnrelated(random: Prng, drive: FuzzDrive, queue: FuzzQueue, burst: BurstStep | undefined): BuiltCommand {
  let built = drawBuilt(random, drive, queue);
  if (burst?.isFirst !== true || burst.begins !== 'transfer') return built;
  for (let i = 0; i < DRAWS_MAX && (built.send?.length ?? built.take ?? 0) === 0; i++)
    built = drawBuilt(random, drive, queue);
  return built;
}

/** `burst`: it runs at once with others. */
export function drawCommand(
  random: Prng,
  drive: FuzzDrive,
  state: DrawState,
  burst: BurstStep | undefined,
): CommandInput {
  const queue = drawQueue(random, drive, burst);
  const built = (burst && drawRelated(random, queue, state, burst)) ?? drawUnrelated(random, drive, queue, burst);
  const { opcode, send, nsid = 0 } = built;
  const { sgl, isInCapsule } = drawSgl(random, built, queue);
  let data = send ?? NONE;
  if (data.length > 0 && random.chance(0.12)) mutateData(random, opcode, (data = data.slice()));
  const taken = state.running.filter((one) => one.queue === queue);
  // Now and then the id of a command that is in flight.
  const commandId = taken.length > 0 && random.chance(0.1) ? random.pick(taken).commandId : state.commandId;
  const isOfAll = queue.queueId !== 0 && random.chance(0.01);
  const entry = entryBytes({ ...built, nsid: isOfAll ? 0xffff_ffff : nsid, sgl }, commandId);
  if (random.chance(0.18)) mutateEntry(random, entry);
  const isIntact = !random.chance(0.03);
  let capsule = isInCapsule ? data : NONE;
  if (random.chance(isIntact ? 0.03 : 0.6)) capsule = mutateLength(random, capsule).slice(0, 8192);
  const isSlow = burst?.isFirst === true && burst.begins === 'transfer';
  const turns = isSlow ? 3 : burst !== undefined || random.chance(0.15) ? random.below(4) : 0;
  return {
    do: 'command',
    queue: drive.queues.indexOf(queue),
    entry,
    capsule,
    data: isInCapsule ? NONE : data,
    turns,
    isIntact,
    isJoined: burst !== undefined && !isEndless(opcode, queue),
  };
}
