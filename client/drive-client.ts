import {
  adminOpcodes,
  BLOCK_NSID,
  DESCRIPTOR_VERSION,
  KV_CACHE_NSID,
  kvOpcodes,
  limits,
  type OpcodeRow,
  regionDescriptor,
} from '../spec/index.ts';
import { type DriveAddress, formatAddress, parseAddress } from './address.ts';
import { Association, type ControllerIdentity, defaultHostNqn, defaultSubsystemNqn } from './association.ts';
import { type AttendEntry, type AttendResult, attendOnce, type OneShotOptions } from './attend.ts';
import type { AttendEntryShape, AttendOptions } from './attend-layout.ts';
import { BlockDevice } from './block-device.ts';
import { type CommandFields, type CommandOptions, type Completion, encodeEntry } from './command.ts';
import { ControllerCommands } from './controller-commands.ts';
import { DriveDisconnectedError, DriveProtocolError, RegionUnavailableError } from './errors.ts';
import { KvCache } from './kv-cache.ts';
import { type AttendPath, PreparedAttend, SlotNumbers } from './prepared-attend.ts';
import { Region } from './region.ts';
import { readDhChapSecrets, type SecretFiles } from './secret-file.ts';
import { RegionSpace } from './region-space.ts';
import { Transfers } from './transfers.ts';

export interface ConnectOptions extends SecretFiles {
  /** I/O queues, each a connection; default 1. */
  readonly ioQueueCount?: number | undefined;
  /** Entries of each I/O queue; one fewer commands may be in flight; default 128. */
  readonly queueDepth?: number | undefined;
  /** The drive ends the association if it hears nothing for this long, and so does the client; 0: off; default 60 s. */
  readonly keepAliveMs?: number | undefined;
  /** For connecting and each step of the handshake; default 10 s. */
  readonly connectTimeoutMs?: number | undefined;
  /**
   * Memory regions for data: `auto` (default) on a Unix socket whose drive offers them, `off`, or `on` for TCP to a
   * drive on this machine. A drive names files that the client then writes to, so `on` trusts the drive.
   */
  readonly regions?: 'auto' | 'on' | 'off' | undefined;
  /**
   * Whether regions are mapped where the native addon is built, so that to copy into them is one copy in memory; default true.
   * If not, they are read and written by system calls.
   */
  readonly mapRegions?: boolean | undefined;
  /** Most bytes of regions that the client takes for its own transfers and prepared requests; default 256 MiB. */
  readonly regionSpaceBytes?: number | undefined;
  /**
   * CRC32C over headers, or over headers and data: what a network changed is noticed. Default off; data digests are summed
   * by plain JavaScript, half a gigabyte a second.
   */
  readonly digests?: 'off' | 'header' | 'all' | undefined;
  /**
   * Microseconds for which this process's event loop stays awake for the answer to its last command, instead of sleeping and
   * being woken, which can take longer than the answer; default 0. For small requests one after the other; takes a processor
   * meanwhile.
   */
  readonly busyPollUs?: number | undefined;
  /** NQN of this host; default one made from the host name and the user. */
  readonly hostNqn?: string | undefined;
  /** NQN of the drive; default: whichever drive listens there. */
  readonly subsystemNqn?: string | undefined;
}

const BUSY_POLL_US_MAX = 1_000_000;
const REGION_SPACE_BYTES = 256 * 1024 * 1024;
/** A one-shot attend is cut into commands of no more data and outputs than this. */
const ATTEND_REGION_BYTES = 8 * 1024 * 1024;
/** Keyed data blocks, in Identify Controller's SGLS. */
const SGLS_KEYED = 1 << 2;

/**
 * A connection to a drive: an NVMe association with one admin queue and one or more I/O queues.
 *
 * When the connection is lost, everything under way fails with DriveDisconnectedError and so does everything after it:
 * the client never reconnects behind its caller's back and never sends a command twice. Connect again and repeat what
 * failed; appends may be repeated as they are.
 */
export class DriveClient {
  /** Where the drive listens. */
  readonly address: string;
  /** The KV-cache namespace. */
  readonly kv: KvCache;
  /** The block namespace. */
  readonly block: BlockDevice;
  /** Identify, log pages, features. */
  readonly controller: ControllerCommands;
  /** Resolves with the reason when the connection has ended, by `close` or otherwise. Never rejects. */
  readonly disconnected: Promise<Error>;
  readonly #association: Association;
  readonly #transfers: Transfers;
  readonly #slots = new SlotNumbers();
  readonly #regions = new Set<Region>();
  readonly #mapsRegions: boolean;
  #deletedRegionBytes = 0;

  /** Connects to `unix:PATH` or `tcp:HOST:PORT`. DriveUnreachableError, DriveCommandError, DriveProtocolError,
   * DriveAuthenticationError; Error for a secret file that is no good. */
  static async connect(address: string, options: ConnectOptions = {}): Promise<DriveClient> {
    const parsed = parseAddress(address);
    const association = await Association.open(parsed, {
      ioQueueCount: within('ioQueueCount', options.ioQueueCount ?? 1, 1, limits.ioQueueCountMax),
      queueDepth: within('queueDepth', options.queueDepth ?? limits.queueEntriesMax, 2, limits.queueEntriesMax),
      keepAliveMs: within('keepAliveMs', options.keepAliveMs ?? 60_000, 0, limits.keepAliveTimeoutMsMax),
      connectTimeoutMs: within('connectTimeoutMs', options.connectTimeoutMs ?? 10_000, 1, 3_600_000),
      subsystemNqn: options.subsystemNqn ?? defaultSubsystemNqn,
      hostNqn: options.hostNqn ?? defaultHostNqn(),
      digests: { header: (options.digests ?? 'off') !== 'off', data: options.digests === 'all' },
      busyPollMs: within('busyPollUs', options.busyPollUs ?? 0, 0, BUSY_POLL_US_MAX) / 1000,
      dhChap: readDhChapSecrets(options),
    });
    const client = new DriveClient(parsed, association, options);
    try {
      if (options.regions !== 'off') await client.#tryRegions(options.regions === 'on');
      return client;
    } catch (error) {
      await client.close();
      throw error;
    }
  }

  private constructor(address: DriveAddress, association: Association, options: ConnectOptions) {
    this.address = formatAddress(address);
    this.#association = association;
    this.#mapsRegions = options.mapRegions ?? true;
    const shared = options.regions === 'on' || (options.regions !== 'off' && address.kind === 'unix');
    const sizeBytesMax = options.regionSpaceBytes ?? REGION_SPACE_BYTES;
    const space = new RegionSpace({ sizeBytesMax }, { create: (sizeBytes) => this.createRegion(sizeBytes) });
    this.#transfers = new Transfers(association, shared && this.#offersRegions ? space : undefined);
    this.kv = new KvCache({ transfers: this.#transfers });
    this.block = new BlockDevice({ transfers: this.#transfers });
    this.controller = new ControllerCommands({ association });
    this.disconnected = new Promise((resolve) => association.onEnd(resolve));
    association.onEnd(() => {
      for (const region of this.#regions) region.closeFile();
      this.#regions.clear();
    });
  }

  /** Identify Controller as it was when the client connected. */
  get identity(): ControllerIdentity {
    return this.#association.identity;
  }

  get isConnected(): boolean {
    return this.#association.end === undefined;
  }

  /** Whether data of this client moves through memory shared with the drive. */
  get sharesMemory(): boolean {
    return this.#transfers.regions !== undefined;
  }

  /** Commands sent and not answered, on all I/O queues. */
  get inFlightCount(): number {
    return this.#association.io.inFlightCount;
  }

  /** Bytes that this client moved so far, both ways: over its sockets, and through regions of memory. */
  get linkCounts(): { readonly socketBytes: number; readonly regionBytes: number } {
    const regionBytes = [...this.#regions].reduce((sum, { movedBytes }) => sum + movedBytes, this.#deletedRegionBytes);
    return { socketBytes: this.#association.linkBytes, regionBytes };
  }

  /**
   * A memory region of the drive, for callers that place data themselves. RegionUnavailableError if this client is on
   * another machine; DriveCommandError regionLimit.
   */
  async createRegion(sizeBytes: number): Promise<Region> {
    within('region size in bytes', sizeBytes, 1, limits.regionBytesMax);
    const { regionCreate, regionDelete } = adminOpcodes;
    const data = new Uint8Array(regionDescriptor.sizeBytes);
    const fields = { cdw10: sizeBytes % 2 ** 32, cdw11: Math.floor(sizeBytes / 2 ** 32) };
    await this.#association.executeAdmin(regionCreate, fields, data);
    const descriptor = regionDescriptor.decode(data);
    if (descriptor.version !== DESCRIPTOR_VERSION || descriptor.key === 0 || descriptor.sizeBytes < sizeBytes) {
      throw new DriveProtocolError(`memory region descriptor ${JSON.stringify(descriptor)} for ${sizeBytes} bytes`);
    }
    const remove = async (key: number): Promise<void> => {
      await this.#association.executeAdmin(regionDelete, { cdw10: key });
    };
    try {
      const region: Region = new Region(
        { ...descriptor, isMapped: this.#mapsRegions },
        {
          delete: (key) => {
            this.#regions.delete(region);
            this.#deletedRegionBytes += region.movedBytes;
            return remove(key);
          },
        },
      );
      this.#regions.add(region);
      return region;
    } catch (error) {
      await remove(descriptor.key);
      throw error;
    }
  }

  /** Attends once. For a decode loop, `prepareAttend` does the same without making everything anew for each step. */
  attend(entries: readonly AttendEntry[], options: OneShotOptions = {}): Promise<AttendResult[]> {
    const { inCapsuleBytesMax, socketBytesMax } = this.#transfers;
    const overSocket = options.path === 'slot' ? socketBytesMax : inCapsuleBytesMax;
    const bytesMax = this.sharesMemory && (options.path ?? 'region') === 'region' ? ATTEND_REGION_BYTES : overSocket;
    return attendOnce(entries, options, { bytesMax }, (shapes, typed) => this.prepareAttend(shapes, typed));
  }

  /**
   * Makes a request that can be posted many times: one command, with buffers and region space of its own. RangeError if
   * the entries are too many for one command.
   */
  prepareAttend(
    entries: readonly AttendEntryShape[],
    options: AttendOptions & { readonly path?: AttendPath | undefined } = {},
  ): Promise<PreparedAttend> {
    return PreparedAttend.prepare(entries, options, {
      transfers: this.#transfers,
      slots: this.#slots,
      execute: (command, commandOptions, onSettled) => {
        return this.#association.io.execute(command, commandOptions, onSettled);
      },
    });
  }

  /** Makes everything durable that completed before; `namespaceId`: either namespace's Flush does it for both. */
  async flush(namespaceId: number = KV_CACHE_NSID, options: CommandOptions = {}): Promise<void> {
    within('namespaceId', namespaceId, BLOCK_NSID, 0xffff_ffff);
    await this.#transfers.execute(
      { opcode: kvOpcodes.flush, subject: () => `namespace ${namespaceId}`, namespaceId },
      options,
    );
  }

  /**
   * Any command, its dwords as given: for tools and tests. Data to send goes in the capsule if it fits, else by R2T;
   * data to receive comes over the socket.
   */
  async passThrough(
    request: CommandFields & {
      readonly queue: 'admin' | 'io';
      readonly opcode: number;
      readonly send?: Uint8Array | undefined;
      readonly receiveBytes?: number | undefined;
    },
    options: CommandOptions = {},
  ): Promise<Completion & { readonly data: Uint8Array }> {
    const { queue, send, receiveBytes = 0 } = request;
    const row: OpcodeRow = { opcode: request.opcode, name: `opcode ${request.opcode.toString(16).padStart(2, '0')}h` };
    const data = new Uint8Array(receiveBytes);
    const inCapsule = send !== undefined && send.byteLength <= this.#inCapsuleBytes(queue);
    const length = send?.byteLength ?? receiveBytes;
    const kind = length === 0 ? 'none' : inCapsule ? 'inCapsule' : 'transport';
    const entry = encodeEntry(row, request, { kind, offset: 0, length });
    const parts = send === undefined ? undefined : [send];
    const completion = await this.#association[queue].execute(
      {
        entry,
        opcodeName: row.name,
        subject: () => `${queue} queue`,
        capsuleData: inCapsule ? parts : undefined,
        sendData: inCapsule ? undefined : parts,
        receive: data,
        receiveMayBeShort: true,
      },
      options,
    );
    return { ...completion, data };
  }

  /** Ends the connection. What is under way fails; wait for it first if it matters. Regions and slots are freed. */
  async close(): Promise<void> {
    this.#association.close();
    await this.disconnected;
  }

  #inCapsuleBytes(queue: 'admin' | 'io'): number {
    return queue === 'io' ? this.#association.inCapsuleBytesMax : limits.adminInCapsuleBytesMax;
  }

  get #offersRegions(): boolean {
    return (this.identity.sgls & SGLS_KEYED) !== 0;
  }

  /** Sees once whether this process can open a region's file; without that, data goes over the socket. */
  async #tryRegions(insist: boolean): Promise<void> {
    const { regions } = this.#transfers;
    if (regions === undefined) {
      if (insist) throw new RegionUnavailableError(`the drive at ${this.address} offers no memory regions`);
      return;
    }
    try {
      regions.release(await regions.allocate(1));
    } catch (error) {
      if (insist || error instanceof DriveDisconnectedError) throw error;
      this.#transfers.dropRegions();
    }
  }
}

function within(what: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${what} ${value}; allowed: an integer from ${min} to ${max}`);
  }
  return value;
}
