import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { subsystemNqn } from '../../spec/fabrics.ts';
import { limits as specLimits } from '../../spec/limits.ts';
import { type Arena, ARENA_RESERVED_BYTES, createArena } from '../../daemon/base/arena.ts';
import { crc32c } from '../../daemon/base/crc32c.ts';
import type { Clock, Timer } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { Limits, NetworkAddress, SubsystemIdentity } from '../../daemon/commands/contract.ts';
import { createSubsystem, type Subsystem, type SubsystemModules } from '../../daemon/controller/subsystem.ts';
import { OwnRecords } from '../../daemon/discovery/own-records.ts';
import { HostDirectory } from '../../daemon/hosts/host-directory.ts';
import { ThreadedKeyExchange } from '../../daemon/hosts/threaded-key-exchange.ts';
import { Transport } from '../../daemon/transport/listener.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { ManualClock as LeaseClock, smallDrive } from '../kv/fixture.ts';
import { MemoryDrive, newRemains, seededRandom } from '../kv/memory-drive.ts';
import { FakeAttention, FakeBlocks, FakeDurability } from './fake-rooms.ts';
import type { TimingProfile } from '../../daemon/profiles/timing-profile.ts';
import { Device } from '../../daemon/timing/device.ts';
import { RawHost } from './raw-host.ts';

const ARENA_BYTES = 64 * 2 ** 20;
export const SERIAL = 'TEST0001';

/** Time that moves only when told. */
export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ atMs: number; callback: () => void }>();

  nowNs(): number {
    return this.#nowMs * 1e6;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  advance(ms: number): void {
    const end = this.#nowMs + ms;
    for (;;) {
      let next: { atMs: number; callback: () => void } | undefined;
      for (const timer of this.#timers) if (timer.atMs <= end && (!next || timer.atMs < next.atMs)) next = timer;
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = next.atMs;
      next.callback();
    }
    this.#nowMs = end;
  }
}

const FLASH_SHAPE = { pageSizeBytes: 4096, pagesPerBlock: 64, channelCount: 1, diesPerChannel: 1, planesPerDie: 1 };

export interface RigOptions {
  readonly limits?: Partial<Limits>;
  readonly modules?: Partial<SubsystemModules>;
  readonly pageSizeBytes?: number;
  /** Default: true, where native code can map them. */
  readonly mapsRegions?: boolean;
  /** Device time by this profile on `clock`; completions are held. */
  readonly enforced?: TimingProfile;
}

/** A subsystem with its transport on a Unix socket and on TCP, over rooms that tests control. */
export interface Rig {
  readonly folder: string;
  readonly limits: Limits;
  readonly clock: ManualClock;
  readonly arena: Arena;
  /** What the rooms had taken of the arena before the first command. */
  readonly arenaUsedBytes: number;
  readonly blocks: FakeBlocks;
  readonly durability: FakeDurability;
  readonly kv: SequenceStore;
  readonly attention: FakeAttention;
  readonly subsystem: Subsystem;
  readonly transport: Transport;
  readonly unix: string;
  readonly tcp: string;
  readonly fatals: unknown[];
  readonly nqn: string;
  /** A connection that has exchanged ICReq and ICResp. */
  host(address?: string): Promise<RawHost>;
  /** An admin queue whose controller is enabled. */
  admin(options?: { kato?: number; address?: string }): Promise<{ host: RawHost; cntlid: number }>;
  /** An I/O queue of a controller. */
  io(cntlid: number, options?: { qid?: number; sqsize?: number; address?: string; cattr?: number }): Promise<RawHost>;
}

export const CC_ENABLED = 0x0046_0061;
export const PROPERTY_CC = 0x14;
export const PROPERTY_CSTS = 0x1c;

export async function createRig(test: TestContext, options: RigOptions = {}): Promise<Rig> {
  const folder = mkdtempSync(join(tmpdir(), 'front-'));
  const limits: Limits = { ...specLimits, ...options.limits };
  const clock = new ManualClock();
  const { arena, kv } = await openSequences();
  const blocks = new FakeBlocks(4096);
  const durability = new FakeDurability();
  const attention = new FakeAttention(arena, kv);
  const fatals: unknown[] = [];
  const nqn = subsystemNqn(SERIAL);
  const listeners: NetworkAddress[] = [];
  const subsystem = createSubsystem(
    {
      identity: identityOf(options.pageSizeBytes ?? 16_384),
      limits,
      regions: { folder: join(folder, 'regions'), fileMode: 0o600, isMapped: options.mapsRegions ?? true },
      holdsCompletions: options.enforced !== undefined,
    },
    {
      arena,
      kv,
      blocks,
      durability,
      userData: { erase: () => Promise.resolve() },
      attention,
      status: {
        health: () => ({ temperature: 300, availSpare: 100 }),
        endurance: () => ({ percentUsed: 7 }),
        isReadOnly: () => false,
        statistics: () => ({ uptimeSeconds: 5 }),
        kvNamespace: () => ({ pageCount: 100, capacityBytes: 100 * 16_384 }),
        blockUsedLbaCount: () => 3,
      },
      discovery: new OwnRecords({ nqn, advertisedHost: undefined }, { listeners: () => listeners }),
      clock,
      hosts: new HostDirectory(),
      keyExchange: new ThreadedKeyExchange(),
      random: createSeededRandom(1),
      logger: silentLogger,
      onFatal: (error) => void fatals.push(error),
      ...(options.enforced && { deviceTime: new Device({ timing: options.enforced, shape: FLASH_SHAPE }, { clock }) }),
      ...options.modules,
    },
  );
  const logger = options.modules?.logger ?? silentLogger;
  const transport = new Transport({ limits }, { subsystem, clock, logger, checksum: crc32c });
  const unix = await transport.listen({ kind: 'unix', path: join(folder, 'nvme.sock'), mode: 0o600 });
  const tcp = await transport.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  listeners.push(...transport.networkAddresses);
  const hosts: RawHost[] = [];
  test.after(async () => {
    for (const host of hosts) host.close();
    await subsystem.close();
    await transport.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const openHost = async (address = unix): Promise<RawHost> => {
    const host = await RawHost.open(address);
    hosts.push(host);
    await host.initialize();
    return host;
  };
  return {
    folder,
    limits,
    clock,
    arena,
    arenaUsedBytes: arena.sizeBytes - arena.freeBytes,
    blocks,
    durability,
    kv,
    attention,
    subsystem,
    transport,
    unix,
    tcp,
    fatals,
    nqn,
    host: openHost,
    async admin({ kato = 0, address = unix } = {}) {
      const host = await openHost(address);
      const completion = await host.connect({ kato }, { subnqn: nqn });
      if (completion.status !== 0) throw new Error(`Connect: status ${completion.status.toString(16)}`);
      await host.propertySet(PROPERTY_CC, CC_ENABLED);
      return { host, cntlid: completion.dw0 & 0xffff };
    },
    async io(cntlid, { qid = 1, sqsize = 127, address = unix, cattr = 0 } = {}) {
      const host = await openHost(address);
      const completion = await host.connect({ qid, sqsize, cattr }, { subnqn: nqn, cntlid });
      if (completion.status !== 0) throw new Error(`I/O Connect: status ${completion.status.toString(16)}`);
      return host;
    },
  };
}

let sharedArena: Arena | undefined;

/** Nobody may count on memory being zero. */
function createDirtyArena(): Arena {
  const arena = createArena(ARENA_BYTES);
  arena.bytes.fill(0xa5, ARENA_RESERVED_BYTES);
  return arena;
}

/**
 * Sequences over a drive in memory. All rigs of a test file have one arena: each shared memory reserves gigabytes of
 * address space, and after some dozens of them the engine collects garbage before every further one.
 */
async function openSequences(): Promise<{ arena: Arena; kv: SequenceStore }> {
  const arena = (sharedArena ??= createDirtyArena());
  const kernels = loadKernels('reference', { memory: arena.memory });
  const kv = new SequenceStore({ arena, kernels, clock: new LeaseClock() });
  await MemoryDrive.open(newRemains(smallDrive), kv, { arena, random: seededRandom(1) });
  return { arena, kv };
}

export const identityOf = (pageSizeBytes: number): SubsystemIdentity => ({
  serial: SERIAL,
  model: 'attndrive test',
  firmware: '0.1.0',
  subsystemNqn: subsystemNqn(SERIAL),
  // A Buffer, as the composition root gives: its slice would share bytes.
  uuid: Buffer.from(Array.from({ length: 16 }, (_, i) => i + 1)),
  build: '0.1.0-test',
  pageSizeBytes,
  kernelSet: 'reference',
  kernelIsa: 'js',
  computeWorkerCount: 0,
});
