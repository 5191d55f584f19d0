/** The drive of a session: every room over stores in memory, hosts of several kinds, limits and troubles by chance. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ErrorCode } from '../../../spec/errors.ts';
import { DISCOVERY_NQN, subsystemNqn } from '../../../spec/fabrics.ts';
import { type HostQuotas, standardQuotas } from '../../../spec/host-quotas.ts';
import { limits } from '../../../spec/limits.ts';
import { type Arena, ARENA_RESERVED_BYTES, createArena, createArenaOver } from '../../../daemon/base/arena.ts';
import { silentLogger } from '../../../daemon/base/logger.ts';
import { createDiscoverySubsystem, type Subsystem } from '../../../daemon/controller/subsystem.ts';
import { DiscoveryDirectory } from '../../../daemon/discovery/directory.ts';
import { ThreadedKeyExchange } from '../../../daemon/hosts/threaded-key-exchange.ts';
import type { Limits } from '../../../daemon/commands/contract.ts';
import type { HostAuthentication, HostPolicy, HostRules, HostTransport } from '../../../daemon/hosts/contract.ts';
import type { Kernels } from '../../../daemon/kernels/contract.ts';
import { loadKernels } from '../../../daemon/kernels/loader.ts';
import { planGeometry } from '../../../daemon/nand/geometry.ts';
import { secretOf } from '../../controller/chap-host.ts';
import { CC_ENABLED, identityOf, ManualClock, PROPERTY_CC, SERIAL } from '../../controller/rig.ts';
import { connectBody, connectEntry, propertySetEntry } from '../../controller/submissions.ts';
import { type ComposedDrive, composeDrive } from '../../sim/composed-drive.ts';
import type { Prng } from '../../sim/prng.ts';
import { DriveModel, HostModel } from './drive-model.ts';
import { DISCOVERY_LIMITS } from './discovery-rules.ts';
import { type Completion, FuzzLink, turn } from './fuzz-link.ts';
import { HOSTS, nqnOf } from './names.ts';
import { TroubledStores } from './troubled-stores.ts';

const ARENA_BYTES = 24 * 2 ** 20;
const MIB = 2 ** 20;
export const PAGE_BYTES = 4096;

/** Of each session, one. */
const kinds = { plain: 38, quotas: 14, smallArena: 8, smallBudget: 18, troubled: 20, manySequences: 2 } as const;
export type SessionKind = keyof typeof kinds;

export const drawKind = (random: Prng): SessionKind => random.weighted(kinds);

/** What the session may bring about. The KV namespace is small enough to fill up in any. */
const excuses: Readonly<Record<SessionKind, readonly ErrorCode[]>> = {
  plain: [],
  quotas: ['hostQuota'],
  smallArena: ['bufferFull'],
  smallBudget: ['commandInterrupted'],
  troubled: ['writeFault', 'unrecoveredRead', 'namespaceWriteProtected'],
  manySequences: ['sequenceLimit'],
};

/** Of the stranger's secret. */
export const SECRET_FILL = 5;

const authentication: HostAuthentication = {
  secret: secretOf(SECRET_FILL),
  controllerSecret: undefined,
  hashes: ['sha256'],
  dhGroups: ['null'],
};

/** The guest comes by a network and may have less; the stranger has to prove who it is. */
class FuzzHosts implements HostPolicy {
  readonly #guest: HostRules;
  demandsProof = false;

  constructor(guest: HostRules) {
    this.#guest = guest;
  }

  rulesOf(hostNqn: string, transport: HostTransport): HostRules | undefined {
    const free: HostRules = { authentication: undefined, quotas: standardQuotas, isConfined: false };
    if (hostNqn === nqnOf(HOSTS.nobody)) return undefined;
    if (hostNqn === nqnOf(HOSTS.guest)) return this.#guest;
    if (hostNqn === nqnOf(HOSTS.stranger) && this.demandsProof && transport === 'tcp')
      return { ...free, authentication };
    return free;
  }
}

const tightQuotas = (random: Prng): HostQuotas => ({
  ...standardQuotas,
  associations: 2,
  queues: 4,
  commands: random.pick([2, 3, 5]),
  sequences: 4,
  kvBytes: 40 * PAGE_BYTES,
  regions: 2,
  regionBytes: 3 * MIB,
  resultSlotBytes: 4096,
});

/** One command with data at a time, or a few, and hardly any may wait. */
const smallBudget = (random: Prng): Partial<Limits> => ({
  connectionDataBytesMax: random.pick([1, 4096]),
  waitingCapsuleBytesTotalMax: random.pick([0, 100, 1000, 6000, 40_000]),
});

/** Every command of a queue, in one place. */
export interface FuzzQueue {
  readonly name:
    | 'admin'
    | 'io'
    | 'other io'
    | 'guest'
    | 'guest io'
    | 'disabled'
    | 'unconnected'
    | 'unproven'
    | 'unproven io'
    | 'discovery'
    | 'central'
    | 'guest central'
    | 'unproven central';
  readonly queueId: number;
  readonly host: HostModel;
  link: FuzzLink;
  /** What every command but those of Fabrics ends with there, if there is such a thing. */
  readonly refusal: ErrorCode | undefined;
  /** Of the association, for connecting again. */
  readonly cntlid: number;
  readonly isTcp: boolean;
}

let shared:
  | { readonly memory: WebAssembly.Memory; readonly kernels: Kernels; readonly regionFolder: string }
  | undefined;

/** Memory and kernels of all drives of this process, which are open one after the other. */
function sharedParts(): NonNullable<typeof shared> {
  if (shared === undefined) {
    const { memory } = createArena(ARENA_BYTES);
    // Regions are to lie in memory, as the drive's own do.
    const regionFolder = mkdtempSync(join(process.platform === 'linux' ? '/dev/shm' : tmpdir(), 'attndrive-fuzz-'));
    process.once('exit', () => rmSync(regionFolder, { recursive: true, force: true }));
    shared = { memory, kernels: loadKernels('wasm', { memory }), regionFolder };
  }
  return shared;
}

export class FuzzDrive {
  readonly kind: SessionKind;
  readonly stores: TroubledStores;
  readonly clock = new ManualClock();
  readonly arena: Arena;
  readonly model: DriveModel;
  readonly fatals: unknown[] = [];
  readonly queues: FuzzQueue[] = [];
  readonly #drive: ComposedDrive;
  /** Another subsystem, which tells of a rack of drives. */
  readonly #central: Subsystem;
  readonly #hosts: FuzzHosts;
  readonly #random: Prng;

  private constructor(
    kind: SessionKind,
    random: Prng,
    parts: {
      stores: TroubledStores;
      arena: Arena;
      drive: ComposedDrive;
      hosts: FuzzHosts;
      fatals: unknown[];
      clock: ManualClock;
      bounds: Partial<Limits>;
    },
  ) {
    this.kind = kind;
    this.stores = parts.stores;
    this.arena = parts.arena;
    this.#drive = parts.drive;
    this.#hosts = parts.hosts;
    this.#central = this.#createCentral(parts.clock, random.fork(), parts.bounds);
    this.#random = random;
    this.fatals = parts.fatals;
    this.clock = parts.clock;
    this.model = new DriveModel({
      lbaCount: parts.drive.ftl.blocks.lbaCount,
      pageSizeBytes: PAGE_BYTES,
      excuses: new Set<ErrorCode>(['capacityExceeded', ...excuses[kind]]),
    });
  }

  /** `bounds`: limits that differ from those that its kind has. */
  static async open(random: Prng, bounds: Partial<Limits> = {}): Promise<FuzzDrive> {
    const kind = drawKind(random);
    const { memory, kernels, regionFolder } = sharedParts();
    // Nobody may count on memory being zero.
    new Uint8Array(memory.buffer, ARENA_RESERVED_BYTES).fill(0xa5);
    const arena = createArenaOver(memory);
    const stores = new TroubledStores(
      planGeometry({
        blockCapacityBytes: MIB,
        kvCapacityBytes: random.pick([0.5, 0.5, 1, 2]) * MIB,
        pageSizeBytes: PAGE_BYTES,
        channelCount: random.pick([1, 2, 4]),
        diesPerChannel: 1,
        overProvisioning: 0.25,
      }),
      random.chance(0.6) ? 0 : 1 + random.below(3),
    );
    const isTight = kind === 'quotas';
    const hosts = new FuzzHosts({
      authentication: undefined,
      quotas: isTight ? tightQuotas(random) : standardQuotas,
      isConfined: isTight && random.chance(0.7),
    });
    const fatals: unknown[] = [];
    const clock = new ManualClock();
    const bounded = kind === 'smallBudget' ? { ...smallBudget(random), ...bounds } : bounds;
    const drive = await composeDrive(stores.stores(), {
      arena,
      kernels,
      clock,
      random: random.fork(),
      onFatal: (error) => void fatals.push(error),
      regionFolder,
      frameCacheBytes: MIB / 2,
      reader: stores.reader,
      ftlOptions: { failures: stores.failures },
      hosts,
      limits: bounded,
    });
    const opened = new FuzzDrive(kind, random, { stores, arena, drive, hosts, fatals, clock, bounds: bounded });
    await opened.#connectAll();
    if (kind === 'smallArena') opened.#fillArena();
    if (kind === 'manySequences') opened.#makeSequences();
    return opened;
  }

  #createCentral(clock: ManualClock, random: Prng, bounds: Partial<Limits>): Subsystem {
    const onChange = (): void => this.#central.discoveryChanged();
    const discovery = new DiscoveryDirectory({ limits: DISCOVERY_LIMITS }, { onChange });
    const onFatal = (error: unknown): void => void this.fatals.push(error);
    const modules = { clock, random, logger: silentLogger, hosts: this.#hosts, keyExchange: new ThreadedKeyExchange() };
    return createDiscoverySubsystem(
      { identity: identityOf(PAGE_BYTES), limits: { ...limits, ...bounds, ...DISCOVERY_LIMITS } },
      { ...modules, discovery, onFatal },
    );
  }

  get subsystem(): ComposedDrive['subsystem'] {
    return this.#drive.subsystem;
  }

  get drive(): ComposedDrive {
    return this.#drive;
  }

  async #connectAll(): Promise<void> {
    const owner = await this.#associate(HOSTS.owner, false);
    this.#add('admin', 0, owner);
    this.#add('io', 1, { ...owner, link: await this.connectIo(owner, 1) });
    this.#add('other io', 2, { ...owner, link: await this.connectIo(owner, 2) });
    const guest = await this.#associate(HOSTS.guest, true);
    guest.host.isConfined = this.#hosts.rulesOf(nqnOf(HOSTS.guest), 'tcp')?.isConfined === true;
    this.#add('guest', 0, guest);
    this.#add('guest io', 1, { ...guest, link: await this.connectIo(guest, 1) });
    this.#add('disabled', 0, await this.#associate(HOSTS.owner, false, false), 'commandSequence');
    const unconnected = { host: new HostModel(0, 'io'), link: new FuzzLink(this.subsystem), cntlid: 0, isTcp: false };
    this.#add('unconnected', 0, unconnected, 'commandSequence');
    const stranger = await this.#associate(HOSTS.stranger, true);
    this.#hosts.demandsProof = true;
    this.#add('unproven io', 1, { ...stranger, link: await this.connectIo(stranger, 1) }, 'authenticationRequired');
    this.#add('unproven', 0, await this.#associate(HOSTS.stranger, true, false), 'authenticationRequired');
    this.#add('discovery', 0, await this.#discover(this.subsystem, 'discovery', HOSTS.owner));
    this.#add('central', 0, await this.#discover(this.#central, 'central', HOSTS.owner));
    this.#add('guest central', 0, await this.#discover(this.#central, 'central', HOSTS.guest));
    const unproven = await this.#discover(this.#central, 'central', HOSTS.stranger);
    this.#add('unproven central', 0, unproven, 'authenticationRequired');
  }

  #add(
    name: FuzzQueue['name'],
    queueId: number,
    parts: { host: HostModel; link: FuzzLink; cntlid: number; isTcp: boolean },
    refusal?: ErrorCode,
  ): void {
    this.queues.push({ name, queueId, refusal, ...parts });
  }

  async #associate(host: number, isTcp: boolean, isEnabled = true) {
    const link = new FuzzLink(this.subsystem, isTcp);
    const model = new HostModel(host, 'io');
    const { status, dw0 } = await this.#connect(link, {}, { subnqn: subsystemNqn(SERIAL), hostnqn: nqnOf(host) });
    assert.equal(status, 0, 'Connect');
    model.controllerId = dw0 & 0xffff;
    if (isEnabled) assert.equal((await this.#enable(link)).status, 0, 'CC.EN');
    return { host: model, link, cntlid: model.controllerId, isTcp };
  }

  async #discover(subsystem: Subsystem, kind: HostModel['kind'], number: number) {
    const isTcp = number !== HOSTS.owner;
    const link = new FuzzLink(subsystem, isTcp);
    const host = new HostModel(number, kind);
    const names = { subnqn: DISCOVERY_NQN, hostnqn: nqnOf(number) };
    const { dw0 } = await this.#connect(link, { kato: 3_600_000 }, names);
    host.controllerId = dw0 & 0xffff;
    if (!link.isAuthenticating) await this.#enable(link);
    return { host, link, cntlid: host.controllerId, isTcp };
  }

  /** An I/O queue of an association. */
  async connectIo(
    { host, cntlid, isTcp }: { host: HostModel; cntlid: number; isTcp: boolean },
    qid: number,
  ): Promise<FuzzLink> {
    const link = new FuzzLink(this.subsystem, isTcp);
    const body = { subnqn: subsystemNqn(SERIAL), hostnqn: nqnOf(host.host), cntlid };
    const { status } = await this.#connect(link, { qid, sqsize: 127 }, body);
    assert.equal(status, 0, 'Connect of an I/O queue');
    host.queueCount++;
    return link;
  }

  #connect(
    link: FuzzLink,
    fields: Parameters<typeof connectEntry>[0],
    body: Parameters<typeof connectBody>[0],
  ): Promise<Completion> {
    return this.#run(link, connectEntry(fields, 1), connectBody(body));
  }

  #enable(link: FuzzLink): Promise<Completion> {
    return this.#run(link, propertySetEntry(PROPERTY_CC, CC_ENABLED, 0, 2), new Uint8Array(0));
  }

  #run(link: FuzzLink, entry: Uint8Array, capsule: Uint8Array): Promise<Completion> {
    return new Promise(
      (resolve) => void link.submit(entry, capsule, { data: capsule, turns: 0, isIntact: true }, resolve),
    );
  }

  /** Leaves commands little memory to work in. */
  #fillArena(): void {
    const left = this.#random.pick([4096, 40_000, 150_000]);
    while (this.arena.freeBytes > left + MIB) this.arena.allocate(MIB / 2);
    while (this.arena.freeBytes > left) this.arena.allocate(4096);
  }

  #makeSequences(): void {
    const shape = {
      layerCount: 1,
      kvHeadCount: 1,
      headDimK: 8,
      headDimV: 8,
      elementTypeK: 'f32',
      elementTypeV: 'f32',
      groupTokens: 1,
    } as const;
    const first = 2n ** 40n;
    for (let i = 0; i < limits.sequenceCountMax - 1; i++) {
      this.#drive.kv.create({ shape, id: first + BigInt(i), label: '', leaseSeconds: 0, owner: 9n });
    }
  }

  advance(ms: number): void {
    this.clock.advance(ms);
    this.model.nowMs += ms;
  }

  /** The end: nothing may be left of what commands have taken. */
  async close(): Promise<void> {
    for (const { link } of this.queues) link.close();
    for (const subsystem of [this.subsystem, this.#central]) {
      await subsystem.close();
      await turn();
      const { inFlightCount, runningBytes, waitingCapsuleBytes, associations } = subsystem.snapshot();
      const left = { inFlightCount, runningBytes, waitingCapsuleBytes, associations: associations.length };
      const nothing = { inFlightCount: 0, runningBytes: 0, waitingCapsuleBytes: 0, associations: 0 };
      assert.deepEqual(left, nothing, 'what commands have left');
    }
    await this.#drive.attention.close();
    this.#drive.kv.close();
    // A disk that has failed can't be flushed.
    if (this.kind === 'troubled') await this.#drive.ftl.abandon();
    else await this.#drive.ftl.close();
    assert.deepEqual(this.fatals, []);
  }
}
