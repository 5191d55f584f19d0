import { packBits } from '../../spec/bits.ts';
import type { HostQuota } from '../../spec/host-quotas.ts';
import { ANY_SUBSYSTEM_NQN, connectResult, DISCOVERY_NQN } from '../../spec/fabrics.ts';
import type { Arena } from '../base/arena.ts';
import { assert } from '../base/assert.ts';
import type { AttentionEngine } from '../attention/contract.ts';
import type { Clock } from '../base/clock.ts';
import { LimitedLog } from '../base/limited-log.ts';
import type { Logger } from '../base/logger.ts';
import type { Random } from '../base/random.ts';
import {
  type Association,
  createFrontCounters,
  type DiscoveryOptions,
  type DiscoverySource,
  type DriveStatus,
  type FrontCounters,
  type Limits,
  type SubsystemIdentity,
} from '../commands/contract.ts';
import { CommandRegistry, createDiscoveryCommands } from '../commands/registry.ts';
import type { BlockNamespace, Durability, UserDataEraser } from '../ftl/contract.ts';
import { type AuthenticationEnd, authenticationEnds, QueueAuthentication } from '../hosts/authentication.ts';
import type { KeyExchange } from '../hosts/chap-crypto.ts';
import type { HostAuthentication, HostPolicy, HostTransport } from '../hosts/contract.ts';
import { HostAccounts } from '../hosts/host-account.ts';
import type { OwnedStore } from '../kv/contract.ts';
import type { DeviceTime } from '../timing/device-job.ts';
import { CompletionHold, type HoldSnapshot } from './completion-hold.ts';
import { CommandCounters, type CommandSample, type HostByteCounters, type LatencySample } from './command-counters.ts';
import type { CommandSlot } from './command-slot.ts';
import type { QueueLink, QueuePort } from './contract.ts';
import { type AssociationSnapshot, Controller, type ControllerKind } from './controller.ts';
import { answer, type FabricsAnswer } from './fabrics-answer.ts';
import { invalidInCommand, invalidInData, parseConnect, type ConnectRequest } from './fabrics-commands.ts';
import { HealthWatch } from './health-watch.ts';
import { RegionFolder, type RegionFolderOptions } from './memory-regions.ts';
import { Queue, type QueueHost } from './queue.ts';
import { TransferBudget } from './transfer-budget.ts';

/** Controller ids FFF0h and up mean something else in Connect. */
const CONTROLLER_ID_MAX = 0xffef;

export interface SubsystemOptions {
  readonly identity: SubsystemIdentity;
  readonly limits: Limits;
  readonly regions: RegionFolderOptions;
  /** Completions leave when the device would have had them, not before. */
  readonly holdsCompletions?: boolean;
}

export interface SubsystemModules extends FrontModules {
  readonly arena: Arena;
  readonly kv: OwnedStore;
  readonly blocks: BlockNamespace;
  readonly durability: Durability;
  readonly userData: UserDataEraser;
  readonly attention: AttentionEngine;
  readonly status: DriveStatus;
  /** What the drive's own discovery controller tells. */
  readonly discovery: DiscoverySource;
}

/** What every subsystem needs. */
interface FrontModules {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  /** Left out: device time is not modelled. */
  readonly deviceTime?: DeviceTime;
  /** Who may connect. */
  readonly hosts: HostPolicy;
  readonly keyExchange: KeyExchange;
  /**
   * Told of every error that is no answer to bad input and no known condition of the environment. The command got an
   * internal error; the composition root decides what to stop (after a broken invariant: everything).
   */
  readonly onFatal: (error: unknown) => void;
}

export interface SubsystemSnapshot {
  readonly associations: readonly AssociationSnapshot[];
  readonly commands: readonly CommandSample[];
  readonly latencies: readonly LatencySample[];
  readonly deviceLatencies: readonly LatencySample[];
  /** Undefined: completions are not held. */
  readonly hold: HoldSnapshot | undefined;
  readonly hostBytes: HostByteCounters;
  readonly counters: Readonly<FrontCounters>;
  /** Authentications by how they ended. */
  readonly authentications: ReadonlyMap<AuthenticationEnd, number>;
  /** Times that Connect came from a host that may not. */
  readonly refusedHostCount: number;
  /** Times that a host wanted more than it may have. */
  readonly quotaRefusals: ReadonlyMap<HostQuota, number>;
  /** Commands between arrival and completion. */
  readonly inFlightCount: number;
  /** Data of running commands, and in-capsule data of waiting ones, in bytes. */
  readonly runningBytes: number;
  readonly waitingCapsuleBytes: number;
}

interface SubsystemParts {
  readonly kinds: readonly ControllerKind[];
  readonly counters: FrontCounters;
  /** Where memory regions are made; undefined: there are none. */
  readonly regionFolder: RegionFolder | undefined;
  /** Of a drive, whose health controllers may want to hear of. */
  readonly status: DriveStatus | undefined;
  /** Undefined: completions leave when they are ready. */
  readonly hold: CompletionHold | undefined;
}

/** An NVM subsystem: every controller, and the way from a connection to one. Discovery controllers live here too. */
export class Subsystem implements QueueHost {
  readonly #limits: Limits;
  readonly #modules: FrontModules;
  readonly #kinds: readonly ControllerKind[];
  readonly #budget: TransferBudget;
  readonly #commandCounters = new CommandCounters();
  readonly #counters: FrontCounters;
  readonly #regionFolder: RegionFolder | undefined;
  readonly #hold: CompletionHold | undefined;
  readonly #controllers = new Map<number, Controller>();
  /** Of these, whose hosts have authenticated or need not. */
  readonly #established = new Set<Controller>();
  readonly #authentications = new Map<AuthenticationEnd, number>(authenticationEnds.map((end) => [end, 0]));
  readonly #refusals: LimitedLog;
  readonly #healthWatch: HealthWatch | undefined;
  readonly #accounts = new HostAccounts();
  #refusedHostCount = 0;
  #nextControllerId = 1;
  #inFlightCount = 0;
  #ioInFlightCount = 0;
  #closing = false;
  readonly #idleWaiters: (() => void)[] = [];
  #linkBytes: () => { receivedBytes: number; sentBytes: number } = () => ({ receivedBytes: 0, sentBytes: 0 });

  constructor({ limits }: { limits: Limits }, modules: FrontModules, parts: SubsystemParts) {
    this.#limits = limits;
    this.#modules = modules;
    this.#kinds = parts.kinds;
    this.#counters = parts.counters;
    this.#hold = parts.hold;
    this.#budget = new TransferBudget({ limits });
    this.#refusals = new LimitedLog(modules);
    this.#regionFolder = parts.regionFolder;
    const { status } = parts;
    const controllers = (): Iterable<Controller> => this.#controllers.values();
    this.#healthWatch = status && new HealthWatch({ limits }, { clock: modules.clock, status, controllers });
  }

  /** A new connection gets its queue, which Connect will make part of an association. */
  attach(link: QueueLink): QueuePort {
    const { clock, logger, deviceTime } = this.#modules;
    return new Queue(
      { limits: this.#limits },
      {
        link,
        subsystem: this,
        budget: this.#budget,
        counters: this.#commandCounters,
        clock,
        logger,
        createJob: deviceTime && (() => deviceTime.createJob()),
        hold: this.#hold,
      },
    );
  }

  /** The transport counts its bytes itself. */
  setLinkBytesSource(source: () => { receivedBytes: number; sentBytes: number }): void {
    this.#linkBytes = source;
  }

  /** Ends every association and resolves when no handler runs any more. No new association is taken. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#healthWatch?.stop();
    for (const controller of [...this.#controllers.values()]) controller.end('the drive stops');
    if (this.#inFlightCount > 0) await new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
  }

  /** What Identify says of a namespace changed. `by`: the controller whose command did it, whose host knows. */
  namespaceChanged(namespaceId: number, by?: Association): void {
    for (const controller of this.#controllers.values()) {
      if (controller !== by) controller.namespaceChanged(namespaceId);
    }
  }

  /** What the discovery log says changed. */
  discoveryChanged(): void {
    for (const controller of this.#controllers.values()) controller.events.report('discoveryLog');
  }

  /** Who may connect has changed: ends the associations of hosts that may no longer, or no longer without proof. */
  hostsChanged(): void {
    this.#accounts.quotasChanged();
    for (const controller of [...this.#controllers.values()]) {
      if (!controller.isAllowed) controller.end('the host may no longer connect, or not without authentication');
    }
  }

  snapshot(): SubsystemSnapshot {
    return {
      associations: [...this.#controllers.values()].map((controller) => controller.snapshot()),
      commands: this.#commandCounters.commands(),
      latencies: this.#commandCounters.latencies(),
      deviceLatencies: this.#commandCounters.deviceLatencies(),
      hold: this.#hold?.snapshot(),
      hostBytes: { ...this.#commandCounters.hostBytes },
      counters: { ...this.frontCounters() },
      authentications: new Map(this.#authentications),
      refusedHostCount: this.#refusedHostCount,
      quotaRefusals: new Map(this.#accounts.refusedCounts),
      inFlightCount: this.#inFlightCount,
      runningBytes: this.#budget.runningBytes,
      waitingCapsuleBytes: this.#budget.waitingCapsuleBytes,
    };
  }

  /** With what the transport counts brought up to date. */
  frontCounters(): FrontCounters {
    const { receivedBytes, sentBytes } = this.#linkBytes();
    this.#counters.linkReceivedBytes = receivedBytes;
    this.#counters.linkSentBytes = sentBytes;
    this.#counters.commandsFailed = this.#commandCounters.failedCount;
    return this.#counters;
  }

  // --- QueueHost ---

  /** I/O commands under way. Admin commands may wait for an event for as long as their host is there. */
  get ioInFlightCount(): number {
    return this.#ioInFlightCount;
  }

  commandStarted(isIo: boolean): void {
    this.#inFlightCount++;
    if (isIo) this.#ioInFlightCount++;
  }

  commandSettled(isIo: boolean): void {
    this.#inFlightCount--;
    if (isIo) this.#ioInFlightCount--;
    assert(this.#inFlightCount >= 0 && this.#ioInFlightCount >= 0, 'a command settles once');
    if (this.#inFlightCount > 0 || this.#idleWaiters.length === 0) return;
    for (const resolve of this.#idleWaiters.splice(0)) resolve();
  }

  reportFatal(error: unknown): void {
    this.#modules.logger.error({ error: error instanceof Error ? error.stack : String(error) }, 'internal error');
    this.#modules.onFatal(error);
  }

  connect(queue: Queue, slot: CommandSlot): FabricsAnswer {
    if (queue.identity !== undefined) return answer('commandSequence');
    const request = parseConnect(slot);
    if ('code' in request) return request;
    const kind = this.#kinds.find(({ subsystemNqns }) => subsystemNqns.includes(request.subsystemNqn));
    if (kind === undefined) return invalidInData('subnqn');
    const { hostNqn } = request;
    if (kind.hosts.rulesOf(hostNqn, transportOf(queue)) === undefined) {
      this.#refusedHostCount++;
      this.#refusals.warn({ peer: queue.link.peer, hostNqn }, 'host not allowed');
      return answer('connectInvalidHost');
    }
    return request.queueId === 0 ? this.#connectAdmin(queue, request, kind) : this.#connectIo(queue, request, kind);
  }

  connected({ identity }: Queue): void {
    if (identity?.queueId === 0) this.#established.add(identity.controller);
  }

  /** DriveError hostQuota, as `connectIo`. */
  #connectAdmin(queue: Queue, request: ConnectRequest, kind: ControllerKind): FabricsAnswer {
    const limits = this.#limits;
    const { entryCount, keepAliveTimeoutMs, hostNqn, hostId } = request;
    if (entryCount < 2 || entryCount > limits.adminQueueEntriesMax) return invalidInCommand('sqsize');
    if (keepAliveTimeoutMs > limits.keepAliveTimeoutMsMax) return answer('keepAliveTimeout');
    if (this.#closing || this.#established.size >= limits.associationCountMax) return answer('connectBusy');
    const account = this.#accounts.enter(hostNqn, () => kind.hosts.rulesOf(hostNqn, transportOf(queue))?.quotas);
    try {
      account.check('associations', 1);
      account.check('queues', 1);
    } catch (error) {
      this.#accounts.leave(hostNqn);
      throw error;
    }
    const controllerId = this.#newControllerId();
    const { clock, logger } = this.#modules;
    const onEnded = (ended: Controller): void => {
      this.#controllers.delete(controllerId);
      this.#established.delete(ended);
      this.#accounts.leave(hostNqn);
      this.#healthWatch?.update();
    };
    const onSettingsChanged = (): void => this.#healthWatch?.update();
    const reportFatal = (error: unknown): void => this.reportFatal(error);
    const controller = new Controller(
      { kind, controllerId, hostNqn, hostId, limits },
      {
        account,
        adminQueue: queue,
        regionFolder: this.#regionFolder,
        counters: this.#counters,
        clock,
        logger,
        onEnded,
        onSettingsChanged,
        reportFatal,
      },
    );
    this.#controllers.set(controllerId, controller);
    controller.startKeepAlive(keepAliveTimeoutMs);
    logger.debug({ controllerId, hostNqn, peer: queue.link.peer, keepAliveTimeoutMs }, 'association begins');
    return this.#establish(queue, request, controller);
  }

  #connectIo(queue: Queue, request: ConnectRequest, kind: ControllerKind): FabricsAnswer {
    const limits = this.#limits;
    const { queueId, entryCount, controllerId } = request;
    const controller = this.#controllers.get(controllerId);
    // A queue by another way than the first would come past the rules of that way.
    const isSameWay = controller !== undefined && (controller.local === undefined) === (queue.link.local === undefined);
    if (!isSameWay || controller.kind !== kind) return invalidInData('cntlid');
    if (request.hostNqn !== controller.hostNqn) return invalidInData('hostnqn');
    if (Buffer.compare(request.hostId, controller.hostId) !== 0) return invalidInData('hostid');
    if (queueId > kind.ioQueueCountMax) return invalidInCommand('qid');
    if (entryCount < 2 || entryCount > limits.queueEntriesMax) return invalidInCommand('sqsize');
    if (controller.state !== 'ready' || controller.hasQueue(queueId)) return answer('commandSequence');
    controller.account.check('queues', 1);
    controller.addQueue(queueId, queue);
    return this.#establish(queue, request, controller);
  }

  /** The last step of Connect. Every queue authenticates for itself. */
  #establish(queue: Queue, request: ConnectRequest, controller: Controller): FabricsAnswer {
    const { hostNqn, subsystemNqn, queueId, entryCount, flowControl } = request;
    const required = (): HostAuthentication | undefined => controller.rules?.authentication;
    const authentication = new QueueAuthentication({ hostNqn, subsystemNqn, required }, this.#modules);
    authentication.onEnd = (end) => this.#authenticationEnded(queue, controller, end);
    queue.establish({ controller, queueId, entryCount, flowControl, authentication });
    const { controllerId: cntlid } = controller;
    return answer(undefined, packBits(connectResult, { cntlid, atr: authentication.isDone ? 0 : 1 }));
  }

  #authenticationEnded(queue: Queue, { hostNqn }: Controller, end: AuthenticationEnd): void {
    this.#authentications.set(end, (this.#authentications.get(end) ?? 0) + 1);
    const { queueId, link } = queue;
    if (end === 'succeeded') queue.authenticated();
    else this.#refusals.warn({ peer: link.peer, hostNqn, queueId, reason: end }, 'authentication failed');
  }

  #newControllerId(): number {
    while (this.#controllers.has(this.#nextControllerId)) this.#advanceControllerId();
    const controllerId = this.#nextControllerId;
    this.#advanceControllerId();
    return controllerId;
  }

  #advanceControllerId(): void {
    this.#nextControllerId = this.#nextControllerId >= CONTROLLER_ID_MAX ? 1 : this.#nextControllerId + 1;
  }
}

const transportOf = ({ link }: Queue): HostTransport => (link.local === undefined ? 'unix' : 'tcp');

/** The subsystem of a drive: I/O controllers, and discovery controllers that tell where it is. */
export function createSubsystem(options: SubsystemOptions, modules: SubsystemModules): Subsystem {
  const { identity, limits, regions, holdsCompletions = false } = options;
  const { arena, kv, blocks, durability, userData, attention, status, discovery, random, hosts } = modules;
  const counters = createFrontCounters();
  const frontCounters = (): FrontCounters => subsystem.frontCounters();
  const namespaceChanged = (namespaceId: number, by: Association): void => subsystem.namespaceChanged(namespaceId, by);
  const rooms = { arena, kv, blocks, durability, userData, attention, status };
  const handlerModules = { ...rooms, counters, frontCounters, namespaceChanged };
  const io: ControllerKind = {
    type: 'io',
    subsystemNqns: [identity.subsystemNqn, ANY_SUBSYSTEM_NQN],
    commands: new CommandRegistry({ identity, limits }, handlerModules),
    ioQueueCountMax: limits.ioQueueCountMax,
    hosts,
    sequences: kv,
    idleTimeoutMs: 0,
    shutDown: () => durability.flush(),
  };
  // Who may not connect need not know where; who may is told without authentication, as everywhere.
  const seekers: HostPolicy = {
    rulesOf: (...host) => {
      const rules = hosts.rulesOf(...host);
      return rules && { ...rules, authentication: undefined };
    },
  };
  const kinds = [io, discoveryKind({ identity, limits }, { source: discovery, hosts: seekers })];
  const regionFolder = new RegionFolder(regions, { random });
  const hold = holdsCompletions ? new CompletionHold({ clock: modules.clock }) : undefined;
  const subsystem: Subsystem = new Subsystem({ limits }, modules, { kinds, counters, regionFolder, status, hold });
  return subsystem;
}

/** A discovery subsystem and nothing else. */
export function createDiscoverySubsystem(
  options: DiscoveryOptions,
  modules: FrontModules & { readonly discovery: DiscoverySource },
): Subsystem {
  const kinds = [discoveryKind(options, { source: modules.discovery, hosts: modules.hosts })];
  const parts = { kinds, counters: createFrontCounters(), regionFolder: undefined, status: undefined, hold: undefined };
  return new Subsystem({ limits: options.limits }, modules, parts);
}

const discoveryKind = (
  options: DiscoveryOptions,
  { source, hosts }: { source: DiscoverySource; hosts: HostPolicy },
): ControllerKind => ({
  type: 'discovery',
  subsystemNqns: [DISCOVERY_NQN],
  commands: createDiscoveryCommands(options, { source }),
  ioQueueCountMax: 0,
  hosts,
  sequences: undefined,
  idleTimeoutMs: options.limits.discoveryIdleTimeoutMs,
  shutDown: async () => undefined,
});
