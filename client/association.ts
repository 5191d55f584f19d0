import { createHash } from 'node:crypto';
import { hostname, userInfo } from 'node:os';
import {
  ANY_SUBSYSTEM_NQN,
  adminOpcodes,
  authenticationCommand,
  authenticationProtocol,
  CNTLID_DYNAMIC,
  capBits,
  ccBits,
  cnsValues,
  commandSetSelections,
  connectCommand,
  connectData,
  connectResult,
  cstsBits,
  encodeSgl,
  FABRICS_OPCODE,
  fabricsTypes,
  features,
  IDENTIFY_BYTES,
  identifyBits,
  identifyController,
  numberOfQueuesBits,
  nqnProblem,
  PROPERTY_SIZE_4,
  PROPERTY_SIZE_8,
  type PropertyName,
  packBits,
  properties,
  propertyGetCommand,
  propertySetCommand,
  type OpcodeRow,
  type Sgl,
  type StructValue,
  SGL_FLAGS,
  setFeaturesBits,
  unpackBits,
  unpackBits64,
} from '../spec/index.ts';
import type { DriveAddress } from './address.ts';
import { authenticate } from './authentication.ts';
import { type Command, type Completion, encodeEntry } from './command.ts';
import { DriveAuthenticationError, DriveDisconnectedError, DriveProtocolError } from './errors.ts';
import type { Digests } from './pdu-parser.ts';
import { type ConnectionEnd, Queue } from './queue.ts';
import { QueueGroup } from './queue-group.ts';
import type { DhChapSecrets } from './secret-file.ts';

export interface AssociationOptions {
  /** 0: of a discovery controller, which has none. */
  readonly ioQueueCount: number;
  readonly queueDepth: number;
  readonly keepAliveMs: number;
  readonly connectTimeoutMs: number;
  readonly subsystemNqn: string;
  readonly hostNqn: string;
  readonly digests: Digests;
  /** Of I/O queues. */
  readonly busyPollMs: number;
  /** For drives that ask for authentication; with a controller secret they have to ask. */
  readonly dhChap?: DhChapSecrets | undefined;
}

export type ControllerIdentity = StructValue<(typeof identifyController)['fields']>;

const ADMIN_QUEUE_DEPTH = 32;
const READY_POLL_MS = 10;
const CAP_TO_UNIT_MS = 500;
const CAPSULE_ENTRY_BYTES = 64;
const ALL_NAMESPACES = 0xffff_ffff;

/** Name of this machine's user for callers that give no host NQN: the same in every process and after a restart. */
export function defaultHostNqn(): string {
  const digest = createHash('sha256').update(`attndrive ${hostname()} ${userInfo().uid}`).digest('hex');
  const uuid = [digest.slice(0, 8), digest.slice(8, 12), `8${digest.slice(13, 16)}`, `8${digest.slice(17, 20)}`];
  return `nqn.2014-08.org.nvmexpress:uuid:${uuid.join('-')}-${digest.slice(20, 32)}`;
}

/** The host identifier that goes with a host NQN: 16 bytes, never all zero. */
const hostIdentifier = (hostNqn: string): Uint8Array => createHash('sha256').update(hostNqn).digest().subarray(0, 16);

/**
 * An association: one admin queue and its I/O queues, one controller on the drive's side. When any of its connections
 * ends, all of it ends.
 */
export class Association {
  readonly #address: DriveAddress;
  readonly #options: AssociationOptions;
  readonly #queues: Queue[] = [];
  readonly #listeners: ((error: ConnectionEnd) => void)[] = [];
  #keepAlive: NodeJS.Timeout | undefined;
  #end: ConnectionEnd | undefined;
  #controllerId = CNTLID_DYNAMIC;
  admin: QueueGroup = new QueueGroup([]);
  io: QueueGroup = new QueueGroup([]);
  identity!: ControllerIdentity;

  /** Connects, enables the controller, and connects the I/O queues. */
  static async open(address: DriveAddress, options: AssociationOptions): Promise<Association> {
    const problem = nqnProblem(options.hostNqn) ?? nqnProblem(options.subsystemNqn);
    if (problem !== undefined) throw new RangeError(`NQN ${options.hostNqn}, ${options.subsystemNqn}: ${problem}`);
    const association = new Association(address, options);
    try {
      await association.#openAdminQueue();
      await association.#enable();
      association.identity = await association.#identify();
      if (options.ioQueueCount > 0) await association.#openIoQueues();
      association.#startKeepAlive();
      return association;
    } catch (error) {
      association.close();
      throw error;
    }
  }

  private constructor(address: DriveAddress, options: AssociationOptions) {
    this.#address = address;
    this.#options = options;
  }

  get end(): ConnectionEnd | undefined {
    return this.#end;
  }

  /** Address of this end of the admin connection; undefined on a Unix socket. */
  get localHost(): string | undefined {
    return this.#queues[0]?.localHost;
  }

  /** Bytes over all sockets so far, both ways. */
  get linkBytes(): number {
    return this.#queues.reduce((sum, queue) => sum + queue.linkBytes, 0);
  }

  /** Data bytes that fit a command capsule of an I/O queue. */
  get inCapsuleBytesMax(): number {
    return Math.max(0, this.identity.ioccsz * 16 - CAPSULE_ENTRY_BYTES);
  }

  /** Bytes that one command may transfer over the socket. */
  get transferBytesMax(): number {
    return this.identity.mdts === 0 ? 1 << 30 : 4096 * 2 ** this.identity.mdts;
  }

  /** Calls back once when the association ends. */
  onEnd(listener: (error: ConnectionEnd) => void): void {
    if (this.#end === undefined) this.#listeners.push(listener);
    else listener(this.#end);
  }

  close(): void {
    const address = this.#queues[0]?.address ?? '';
    this.#fail(new DriveDisconnectedError(address, 'closed by the client'));
  }

  #fail(error: ConnectionEnd): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    clearInterval(this.#keepAlive);
    this.admin.fail(error);
    this.io.fail(error);
    for (const queue of this.#queues) queue.close(error);
    for (const listener of this.#listeners.splice(0)) listener(error);
  }

  async #openQueue(queueId: number, depth: number): Promise<Queue> {
    const queue = await Queue.open(this.#address, {
      depth,
      timeoutMs: this.#options.connectTimeoutMs,
      digests: this.#options.digests,
      busyPollMs: queueId === 0 ? 0 : this.#options.busyPollMs,
      onEnd: (error) => this.#fail(error),
    });
    this.#queues.push(queue);
    const group = new QueueGroup([queue]);
    const { dw0 } = await group.execute(this.#connectCommand(queueId, depth), this.#connectLimit());
    const { cntlid, atr, ascr } = unpackBits(connectResult, dw0);
    if (ascr !== 0) throw new DriveProtocolError('the drive asks for a secure channel, which this client has none of');
    await this.#authenticate(group, atr !== 0);
    if (queueId === 0) this.#controllerId = cntlid;
    return queue;
  }

  /** Each queue for itself. */
  async #authenticate(group: QueueGroup, isAsked: boolean): Promise<void> {
    const { dhChap, hostNqn, subsystemNqn } = this.#options;
    if (dhChap === undefined) {
      if (!isAsked) return;
      throw new DriveAuthenticationError(`the drive wants ${hostNqn} to authenticate, and this client has no secret`);
    }
    if (!isAsked && dhChap.controllerSecret === undefined) return;
    const { authenticationSend, authenticationReceive } = fabricsTypes;
    const run = async (
      type: OpcodeRow,
      sgl: MessageSgl,
      more: Pick<Command, 'capsuleData' | 'receive'>,
    ): Promise<void> => {
      const entry = authenticationEntry(type, sgl);
      const subject = (): string => `host ${hostNqn}`;
      await group.execute({ entry, opcodeName: type.name, subject, fabrics: true, ...more }, this.#connectLimit());
    };
    await authenticate(
      {
        send: (message) => {
          const sgl = { kind: 'inCapsule', offset: 0, length: message.length } as const;
          return run(authenticationSend, sgl, { capsuleData: [message] });
        },
        receive: async (lengthBytes) => {
          const message = new Uint8Array(lengthBytes);
          await run(authenticationReceive, { kind: 'transport', length: lengthBytes }, { receive: message });
          return message;
        },
      },
      dhChap,
      { hostNqn, subsystemNqn },
    );
  }

  #connectLimit(): { timeoutMs: number } {
    return { timeoutMs: this.#options.connectTimeoutMs };
  }

  #connectCommand(queueId: number, depth: number): Command {
    const { hostNqn, subsystemNqn, keepAliveMs } = this.#options;
    const entry = connectCommand.encode({
      opcode: FABRICS_OPCODE,
      flags: SGL_FLAGS,
      fctype: fabricsTypes.connect.opcode,
      qid: queueId,
      sqsize: depth - 1,
      kato: queueId === 0 ? keepAliveMs : 0,
    });
    encodeSgl({ kind: 'inCapsule', offset: 0, length: connectData.sizeBytes }, entry, connectCommand.offsetOf.sgl);
    const data = connectData.encode({
      hostid: hostIdentifier(hostNqn),
      cntlid: this.#controllerId,
      subnqn: subsystemNqn,
      hostnqn: hostNqn,
    });
    const subject = (): string => `queue ${queueId}, subsystem ${subsystemNqn}, host ${hostNqn}`;
    return { entry, opcodeName: fabricsTypes.connect.name, subject, capsuleData: [data], fabrics: true };
  }

  async #openAdminQueue(): Promise<void> {
    this.admin = new QueueGroup([await this.#openQueue(0, ADMIN_QUEUE_DEPTH)]);
  }

  async #openIoQueues(): Promise<void> {
    const { queueDepth } = this.#options;
    const granted = await this.#grantedQueueCount();
    const depth = Math.max(2, Math.min(queueDepth, this.identity.maxcmd === 0 ? queueDepth : this.identity.maxcmd));
    const opened = Array.from({ length: granted }, (_, index) => this.#openQueue(index + 1, depth));
    // All of them are awaited even if one fails, so that none opens behind a closed association.
    const results = await Promise.allSettled(opened);
    const queues = results.map((result) => {
      if (result.status === 'rejected') throw result.reason;
      return result.value;
    });
    this.io = new QueueGroup(queues);
    if (this.#end !== undefined) throw this.#end;
  }

  async #grantedQueueCount(): Promise<number> {
    const wanted = this.#options.ioQueueCount;
    const cdw11 = packBits(numberOfQueuesBits, { submission: wanted - 1, completion: wanted - 1 });
    const cdw10 = packBits(setFeaturesBits, { fid: features.numberOfQueues.fid });
    const { dw0 } = await this.executeAdmin(adminOpcodes.setFeatures, { cdw10, cdw11 });
    return Math.min(wanted, unpackBits(numberOfQueuesBits, dw0).submission + 1);
  }

  /** An admin command, with or without data to receive. */
  executeAdmin(
    opcode: { readonly opcode: number; readonly name: string },
    fields: { namespaceId?: number; cdw10?: number; cdw11?: number; cdw12?: number; cdw13?: number; cdw14?: number },
    receive?: Uint8Array,
  ): Promise<Completion> {
    const sgl =
      receive === undefined ? ({ kind: 'none' } as const) : ({ kind: 'transport', length: receive.length } as const);
    const entry = encodeEntry(opcode, fields, sgl);
    const { namespaceId = 0 } = fields;
    const subject = namespaceId === 0 || namespaceId === ALL_NAMESPACES ? '' : `namespace ${namespaceId}`;
    return this.admin.execute({ entry, opcodeName: opcode.name, subject: () => subject, receive });
  }

  async #identify(): Promise<ControllerIdentity> {
    const data = new Uint8Array(IDENTIFY_BYTES);
    const cdw10 = packBits(identifyBits, { cns: cnsValues.controller.cns });
    await this.executeAdmin(adminOpcodes.identify, { cdw10 }, data);
    return identifyController.decode(data);
  }

  /** The enable sequence of the standard: CAP, then CC.EN = 1, then wait for CSTS.RDY. */
  async #enable(): Promise<void> {
    const cap = unpackBits64(capBits, await this.getProperty('cap'));
    const isIo = this.#options.ioQueueCount > 0;
    if (isIo && cap.cssIocs === 0) {
      throw new DriveProtocolError('the controller has no command sets by CSI (CAP.CSS bit 6)');
    }
    const css = isIo ? commandSetSelections.allSupported : commandSetSelections.nvm;
    await this.setProperty('cc', BigInt(packBits(ccBits, { en: 1, css, iosqes: 6, iocqes: 4 })));
    const deadline = performance.now() + Math.max(cap.to, 1) * CAP_TO_UNIT_MS;
    for (;;) {
      const csts = unpackBits(cstsBits, Number(await this.getProperty('csts')));
      if (csts.cfs !== 0) throw new DriveProtocolError('controller fatal status while it was enabled');
      if (csts.rdy !== 0) return;
      if (performance.now() > deadline)
        throw new DriveProtocolError('controller not ready in the time that CAP.TO states');
      await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS));
    }
  }

  async getProperty(name: PropertyName): Promise<bigint> {
    const { offset, sizeBytes } = properties[name];
    const entry = propertyGetCommand.encode({
      opcode: FABRICS_OPCODE,
      flags: SGL_FLAGS,
      fctype: fabricsTypes.propertyGet.opcode,
      attrib: sizeBytes === 8 ? PROPERTY_SIZE_8 : PROPERTY_SIZE_4,
      ofst: offset,
    });
    const { dw0, dw1 } = await this.#executeFabrics(entry, fabricsTypes.propertyGet.name, name);
    return (BigInt(dw1) << 32n) | BigInt(dw0);
  }

  async setProperty(name: PropertyName, value: bigint): Promise<void> {
    const { offset, sizeBytes } = properties[name];
    const entry = propertySetCommand.encode({
      opcode: FABRICS_OPCODE,
      flags: SGL_FLAGS,
      fctype: fabricsTypes.propertySet.opcode,
      attrib: sizeBytes === 8 ? PROPERTY_SIZE_8 : PROPERTY_SIZE_4,
      ofst: offset,
      value,
    });
    await this.#executeFabrics(entry, fabricsTypes.propertySet.name, name);
  }

  #executeFabrics(entry: Uint8Array, opcodeName: string, property: PropertyName): Promise<Completion> {
    const subject = (): string => properties[property].name;
    return this.admin.execute({ entry, opcodeName, subject, fabrics: true }, this.#connectLimit());
  }

  /** A drive that doesn't answer Keep Alive in the time that it would grant us is gone. */
  #startKeepAlive(): void {
    const { keepAliveMs } = this.#options;
    if (keepAliveMs === 0) return;
    let waitingSince: number | undefined;
    this.#keepAlive = setInterval(
      () => {
        if (waitingSince !== undefined) {
          if (performance.now() - waitingSince < keepAliveMs) return;
          this.#fail(new DriveDisconnectedError(this.#queues[0]?.address ?? '', `no keep alive in ${keepAliveMs} ms`));
          return;
        }
        waitingSince = performance.now();
        const done = (): void => {
          waitingSince = undefined;
        };
        this.executeAdmin(adminOpcodes.keepAlive, {}).then(done, done);
      },
      Math.ceil(keepAliveMs / 2),
    );
    this.#keepAlive.unref();
  }
}

type MessageSgl = Extract<Sgl, { readonly kind: 'inCapsule' | 'transport' }>;

function authenticationEntry({ opcode: fctype }: OpcodeRow, sgl: MessageSgl): Uint8Array {
  const fields = { opcode: FABRICS_OPCODE, flags: SGL_FLAGS, fctype, ...authenticationProtocol };
  const entry = authenticationCommand.encode({ ...fields, lengthBytes: sgl.length });
  encodeSgl(sgl, entry, authenticationCommand.offsetOf.sgl);
  return entry;
}

export const defaultSubsystemNqn = ANY_SUBSYSTEM_NQN;
