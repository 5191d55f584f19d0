import {
  adminOpcodes,
  adrfams,
  asyncEventBits,
  asyncEventConfigurationBits,
  asyncEvents,
  dimBits,
  dimEntities,
  dimEntryFormats,
  dimHeader,
  dimTasks,
  DISCOVERY_NQN,
  DISCOVERY_UNIT_BYTES,
  discoveryLogEntry,
  discoveryLogHeader,
  discoveryLogPages,
  discoveryOpcodes,
  features,
  packBits,
  setFeaturesBits,
  type StructValue,
  submissionEntry,
  subtypes,
  trtypes,
  unpackBits,
  encodeSgl,
  SGL_FLAGS,
} from '../spec/index.ts';
import { formatAddress, parseAddress } from './address.ts';
import { Association, defaultHostNqn } from './association.ts';
import { ControllerCommands } from './controller-commands.ts';
import { DriveProtocolError } from './errors.ts';
import { readDhChapSecrets, type SecretFiles } from './secret-file.ts';

export interface DiscoveryOptions extends SecretFiles {
  /** The service ends the association if it hears nothing for this long, and so does the client; default 30 s. */
  readonly keepAliveMs?: number | undefined;
  /** For connecting and each step of the handshake; default 10 s. */
  readonly connectTimeoutMs?: number | undefined;
  /** NQN of this host; default one made from the host name and the user. */
  readonly hostNqn?: string | undefined;
}

/** One entry of the discovery log. */
export interface DiscoveryEntry {
  readonly subtype: keyof typeof subtypes;
  readonly nqn: string;
  readonly host: string;
  readonly port: number;
  /** All of its fields. */
  readonly fields: StructValue<(typeof discoveryLogEntry)['fields']>;
}

export interface DiscoveryLog {
  readonly generation: number;
  readonly entries: readonly DiscoveryEntry[];
}

/** A subsystem that registers: its NQN and where it listens. */
export interface Registration {
  readonly nqn: string;
  readonly addresses: readonly { readonly host: string; readonly port: number }[];
}

const READS_MAX = 10;
const KEEP_ALIVE_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;
const IN_CAPSULE_BYTES = 8192;

/** A connection to a discovery controller: a drive's own, or a service that knows many. */
export class DiscoveryClient {
  readonly address: string;
  /** Resolves with the reason when the connection has ended. Never rejects. */
  readonly disconnected: Promise<Error>;
  readonly #association: Association;
  readonly #commands: ControllerCommands;
  #change: Promise<void> | undefined;

  /** `tcp:HOST:PORT` or `unix:PATH`. DriveUnreachableError, DriveCommandError, DriveProtocolError. */
  static async connect(address: string, options: DiscoveryOptions = {}): Promise<DiscoveryClient> {
    const parsed = parseAddress(address);
    const association = await Association.open(parsed, {
      ioQueueCount: 0,
      busyPollMs: 0,
      queueDepth: 0,
      keepAliveMs: options.keepAliveMs ?? KEEP_ALIVE_MS,
      connectTimeoutMs: options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      subsystemNqn: DISCOVERY_NQN,
      hostNqn: options.hostNqn ?? defaultHostNqn(),
      digests: { header: false, data: false },
      dhChap: readDhChapSecrets(options),
    });
    return new DiscoveryClient(formatAddress(parsed), association);
  }

  private constructor(address: string, association: Association) {
    this.address = address;
    this.#association = association;
    this.#commands = new ControllerCommands({ association });
    this.disconnected = new Promise((resolve) => association.onEnd(resolve));
  }

  get isConnected(): boolean {
    return this.#association.end === undefined;
  }

  /** Address of this end of the connection; undefined on a Unix socket. */
  get localHost(): string | undefined {
    return this.#association.localHost;
  }

  /** The whole log, of one generation. DriveProtocolError if it changes faster than it can be read. */
  async log(): Promise<DiscoveryLog> {
    const { lid } = discoveryLogPages.discovery;
    for (let i = 0; i < READS_MAX; i++) {
      const head = discoveryLogHeader.decode(await this.#commands.logPage({ lid, sizeBytes: DISCOVERY_UNIT_BYTES }));
      const bytes = await this.#read(DISCOVERY_UNIT_BYTES * (1 + head.numrec));
      const { genctr, numrec } = discoveryLogHeader.decode(bytes);
      if (genctr === head.genctr && numrec === head.numrec)
        return { generation: genctr, entries: entriesOf(bytes, numrec) };
    }
    throw new DriveProtocolError('the discovery log changes faster than it can be read');
  }

  /** In pieces of what one command can carry; the last one counts as having read the page. */
  async #read(sizeBytes: number): Promise<Uint8Array> {
    const { lid } = discoveryLogPages.discovery;
    const bytes = new Uint8Array(sizeBytes);
    const pieceBytes = this.#association.transferBytesMax;
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      const piece = Math.min(pieceBytes, sizeBytes - offset);
      bytes.set(await this.#commands.logPage({ lid, sizeBytes: piece, offset }), offset);
    }
    return bytes;
  }

  /**
   * Resolves when the log has changed since it was last read; rejects when the connection ends. Calls that wait at the same
   * time wait for the same event.
   */
  changed(): Promise<void> {
    this.#change ??= this.#nextChange().finally(() => {
      this.#change = undefined;
    });
    return this.#change;
  }

  async #nextChange(): Promise<void> {
    const cdw11 = packBits(asyncEventConfigurationBits, { discoveryLog: 1 });
    const cdw10 = packBits(setFeaturesBits, { fid: features.asyncEventConfiguration.fid });
    await this.#association.executeAdmin(adminOpcodes.setFeatures, { cdw10, cdw11 });
    const { dw0 } = await this.#association.executeAdmin(adminOpcodes.asyncEventRequest, {});
    const { lid } = unpackBits(asyncEventBits, dw0);
    if (lid !== asyncEvents.discoveryLog.lid) throw new DriveProtocolError(`event ${dw0} of a discovery controller`);
  }

  /** Tells the service where a subsystem is, for as long as this connection lasts. A repetition replaces. */
  async register({ nqn, addresses }: Registration): Promise<void> {
    await this.#manage(dimTasks.register, nqn, addresses);
  }

  async deregister(nqn: string): Promise<void> {
    await this.#manage(dimTasks.deregister, nqn, []);
  }

  async close(): Promise<void> {
    this.#association.close();
    await this.disconnected;
  }

  async #manage(tas: number, nqn: string, addresses: Registration['addresses']): Promise<void> {
    const data = new Uint8Array(DISCOVERY_UNIT_BYTES * (1 + addresses.length));
    const { directDiscoveryController: etype } = dimEntities;
    const entfmt = dimEntryFormats.basic;
    dimHeader.encode({ tdl: data.length, nument: addresses.length, entfmt, etype, eid: nqn }, data);
    addresses.forEach(({ host, port }, index) => {
      const entry = {
        trtype: trtypes.tcp,
        adrfam: host.includes(':') ? adrfams.ipv6 : adrfams.ipv4,
        subtype: subtypes.nvm,
        portid: index + 1,
        cntlid: 0xffff,
        trsvcid: String(port),
        subnqn: nqn,
        traddr: host,
      };
      discoveryLogEntry.encode(entry, data, DISCOVERY_UNIT_BYTES * (1 + index));
    });
    const { discoveryInformationManagement: row } = discoveryOpcodes;
    const inCapsule = data.length <= IN_CAPSULE_BYTES;
    const entry: Uint8Array = submissionEntry.encode({
      opcode: row.opcode,
      flags: SGL_FLAGS,
      cdw10: packBits(dimBits, { tas }),
    });
    const sgl = inCapsule
      ? ({ kind: 'inCapsule', offset: 0, length: data.length } as const)
      : ({ kind: 'transport', length: data.length } as const);
    encodeSgl(sgl, entry, submissionEntry.offsetOf.sgl);
    await this.#association.admin.execute({
      entry,
      opcodeName: row.name,
      subject: () => nqn,
      capsuleData: inCapsule ? [data] : undefined,
      sendData: inCapsule ? undefined : [data],
    });
  }
}

const subtypeNames = new Map<number, keyof typeof subtypes>(
  Object.entries(subtypes).map(([name, value]) => [value, name as keyof typeof subtypes]),
);

/** Entries of transports and kinds that this client does not know are left out. */
function entriesOf(bytes: Uint8Array, count: number): DiscoveryEntry[] {
  const entries: DiscoveryEntry[] = [];
  for (let i = 0; i < count; i++) {
    const fields = discoveryLogEntry.decode(bytes, DISCOVERY_UNIT_BYTES * (1 + i));
    const subtype = subtypeNames.get(fields.subtype);
    if (subtype === undefined || fields.trtype !== trtypes.tcp) continue;
    entries.push({ subtype, nqn: fields.subnqn, host: fields.traddr, port: Number(fields.trsvcid), fields });
  }
  return entries;
}
