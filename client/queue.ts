import { connect, type OnReadOpts, type Socket } from 'node:net';
import {
  c2hData,
  c2hTermReq,
  completionEntry,
  digestBits,
  fatalErrors,
  icReq,
  icResp,
  PDU_COMMON_HEADER_BYTES,
  PDU_FORMAT_VERSION,
  type PduType,
  pduFlags,
  pduTypes,
  r2t,
  statusCodeOf,
  submissionEntry,
} from '../spec/index.ts';
import { connectOptions, type DriveAddress, formatAddress } from './address.ts';
import { BusyPoll } from './busy-poll.ts';
import { byteLengthOf, type Command } from './command.ts';
import {
  DriveCommandError,
  DriveDigestError,
  DriveDisconnectedError,
  DriveProtocolError,
  DriveUnreachableError,
} from './errors.ts';
import { type CommandEnd, InFlight } from './in-flight.ts';
import { PduOutput } from './pdu-output.ts';
import { type Digests, PduParser, type PduSink } from './pdu-parser.ts';

const RECEIVE_BUFFER_BYTES = 262_144;
const MAXH2CDATA_MIN = 4096;
const NO_PARTS: readonly Uint8Array[] = [];
/** Fields of a response capsule. */
const responseAt = {
  dw0: PDU_COMMON_HEADER_BYTES + completionEntry.offsetOf.dw0,
  dw1: PDU_COMMON_HEADER_BYTES + completionEntry.offsetOf.dw1,
  commandId: PDU_COMMON_HEADER_BYTES + completionEntry.offsetOf.commandId,
  status: PDU_COMMON_HEADER_BYTES + completionEntry.offsetOf.status,
};

export type ConnectionEnd = DriveDisconnectedError | DriveProtocolError;

export interface QueueOptions {
  /** Entries of the submission queue; one fewer commands may be in flight. */
  readonly depth: number;
  /** Longest wait for the connection and for ICResp. */
  readonly timeoutMs: number;
  /** Asked for in ICReq; a drive that grants others is a protocol error. */
  readonly digests: Digests;
  /** How long to keep the event loop awake for an answer; 0: it sleeps. */
  readonly busyPollMs: number;
  /** Told once when the connection ends, whoever ended it. */
  readonly onEnd: (error: ConnectionEnd) => void;
}

/**
 * One NVMe/TCP connection, which is one queue: PDUs out, completions in. Callers check `creditCount` before they
 * submit. Every command submitted ends exactly once, by its completion or by the loss of the connection; nothing is
 * sent twice.
 */
export class Queue implements PduSink {
  readonly address: string;
  readonly #socket: Socket;
  readonly #inFlight: InFlight;
  readonly #options: QueueOptions;
  readonly #parser = new PduParser(this);
  readonly #output: PduOutput;
  readonly #busyPoll: BusyPoll;
  #opened: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #end: ConnectionEnd | undefined;
  #sendBytesMax = MAXH2CDATA_MIN;
  /** The command whose C2HData arrives, and whether that completes it. */
  #arrivingId = 0;
  #arrivingCompletes = false;

  /** Connects and negotiates. DriveUnreachableError if nothing listens there or it doesn't speak NVMe/TCP. */
  static async open(address: DriveAddress, options: QueueOptions): Promise<Queue> {
    const queue = new Queue(address, options);
    const timer = setTimeout(() => {
      queue.#fail(new DriveDisconnectedError(queue.address, `no answer in ${options.timeoutMs} ms`));
    }, options.timeoutMs);
    try {
      await new Promise<void>((resolve, reject) => {
        queue.#opened = { resolve, reject };
      });
      return queue;
    } catch (error) {
      throw unreachable(queue.address, error as Error);
    } finally {
      clearTimeout(timer);
      queue.#opened = undefined;
    }
  }

  private constructor(address: DriveAddress, options: QueueOptions) {
    this.address = formatAddress(address);
    this.#options = options;
    this.#inFlight = new InFlight(options.depth - 1);
    const isWaiting = (): boolean => this.#inFlight.activeCount > 0;
    this.#busyPoll = new BusyPoll({ longestMs: options.busyPollMs }, { isWaiting });
    const onread: OnReadOpts = {
      buffer: Buffer.allocUnsafeSlow(RECEIVE_BUFFER_BYTES),
      callback: (count, buffer) => {
        this.#receive(buffer.subarray(0, count));
        return true;
      },
    };
    this.#socket = connect({ ...connectOptions(address), onread });
    this.#output = new PduOutput(this.#socket);
    this.#socket.once('connect', () => {
      const { type, hlen } = pduTypes.icReq;
      const dgst = digestField(options.digests);
      this.#socket.write(icReq.encode({ type, hlen, plen: hlen, pfv: PDU_FORMAT_VERSION, dgst }));
    });
    this.#socket.on('error', (error) => this.#fail(new DriveDisconnectedError(this.address, error.message, error)));
    this.#socket.on('end', () => this.#fail(new DriveDisconnectedError(this.address, 'closed by the drive')));
    this.#socket.on('close', () => this.#fail(new DriveDisconnectedError(this.address, 'closed')));
  }

  /** Commands that may be submitted now. */
  get creditCount(): number {
    return this.#end === undefined ? this.#inFlight.freeCount : 0;
  }

  /** Address of this end; undefined on a Unix socket. */
  get localHost(): string | undefined {
    return this.#socket.localAddress;
  }

  /** Bytes over the socket so far, both ways. */
  get linkBytes(): number {
    return this.#socket.bytesRead + this.#socket.bytesWritten;
  }

  get inFlightCount(): number {
    return this.#inFlight.activeCount;
  }

  /** Sends a command; `end` hears once how it ended. There must be a credit, or the connection have ended. */
  submit(command: Command, end: CommandEnd): void {
    if (this.#end !== undefined) {
      end.fail(this.#end);
      return;
    }
    const commandId = this.#inFlight.add(command, end);
    const { entry, capsuleData = NO_PARTS } = command;
    entry[submissionEntry.offsetOf.commandId] = commandId & 0xff;
    entry[submissionEntry.offsetOf.commandId + 1] = commandId >>> 8;
    this.#busyPoll.touch();
    this.#output.capsule(entry, capsuleData, byteLengthOf(capsuleData));
  }

  /** Nobody waits for this command any more: its data is dropped, its credit comes back when the drive answers. */
  abandon(command: Command): void {
    this.#inFlight.abandon(command);
  }

  /** Ends the connection; whatever is in flight fails. */
  close(end: ConnectionEnd = new DriveDisconnectedError(this.address, 'closed by the client')): void {
    if (this.#end !== undefined) return;
    this.#output.flush();
    this.#socket.end();
    // A drive that doesn't close its side must not keep this process alive.
    this.#socket.unref();
    this.#fail(end);
  }

  /** A PDU header from the drive; returns where its data goes. */
  header(type: PduType, bytes: Uint8Array, at: number, dataBytes: number): Uint8Array | undefined {
    if (this.#opened !== undefined && type !== 'icResp' && type !== 'c2hTermReq') {
      throw new DriveProtocolError(`${pduTypes[type].name} before ICResp`);
    }
    switch (type) {
      case 'icResp':
        this.#acceptParameters(bytes, at);
        return undefined;
      case 'capsuleResp':
        this.#complete(bytes, at);
        return undefined;
      case 'c2hData':
        return this.#dataTarget(bytes, at, dataBytes);
      case 'r2t':
        this.#answerR2T(bytes, at);
        return undefined;
      default:
        throw new DriveProtocolError(`the drive ended the connection: ${fatalErrorText(bytes, at)}`);
    }
  }

  dataEnd(isIntact: boolean): void {
    if (!isIntact) this.#inFlight.find(this.#arrivingId).damaged = true;
    if (!this.#arrivingCompletes) return;
    const flight = this.#inFlight.find(this.#arrivingId);
    const { command, damaged } = flight;
    const end = this.#inFlight.remove(flight);
    if (damaged) end.fail(digestError(command));
    else end.succeed(0, 0);
  }

  #receive(chunk: Uint8Array): void {
    if (this.#end !== undefined) return;
    try {
      this.#parser.push(chunk);
    } catch (error) {
      if (!(error instanceof DriveProtocolError)) throw error;
      this.#fail(error);
    }
  }

  #fail(error: ConnectionEnd): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    if (!this.#socket.writableEnded) this.#socket.destroy();
    this.#opened?.reject(error);
    // The association first: nothing that waits may go out on its other connections.
    this.#options.onEnd(error);
    this.#inFlight.failAll(error);
  }

  #acceptParameters(bytes: Uint8Array, at: number): void {
    const { pfv, cpda, dgst, maxh2cdata } = icResp.decode(bytes, at);
    if (this.#opened === undefined) throw new DriveProtocolError('a second ICResp');
    const isAsked = dgst === digestField(this.#options.digests);
    if (pfv !== PDU_FORMAT_VERSION || cpda > 31 || !isAsked || maxh2cdata < MAXH2CDATA_MIN) {
      throw new DriveProtocolError(`ICResp with pfv ${pfv}, cpda ${cpda}, dgst ${dgst}, maxh2cdata ${maxh2cdata}`);
    }
    this.#output.agree(cpda, this.#options.digests);
    this.#parser.useDigests(this.#options.digests);
    this.#sendBytesMax = maxh2cdata;
    this.#opened.resolve();
  }

  #complete(bytes: Uint8Array, at: number): void {
    const dw0 = u32(bytes, at + responseAt.dw0);
    const dw1 = u32(bytes, at + responseAt.dw1);
    const status = u16(bytes, at + responseAt.status);
    const commandId = u16(bytes, at + responseAt.commandId);
    const flight = this.#inFlight.find(commandId);
    const { command, receivedBytes, damaged } = flight;
    const end = this.#inFlight.remove(flight);
    if (statusCodeOf(status) !== 0) {
      const { opcodeName, fabrics = false } = command;
      end.fail(new DriveCommandError({ opcodeName, subject: command.subject(), status, dw0, dw1, fabrics }));
      return;
    }
    if (damaged) {
      end.fail(digestError(command));
      return;
    }
    const wanted = command.receive?.byteLength ?? 0;
    if (receivedBytes !== wanted && command.receiveMayBeShort !== true) {
      const error = new DriveProtocolError(`${command.opcodeName} succeeded with ${receivedBytes} of ${wanted} bytes`);
      end.fail(error);
      throw error;
    }
    end.succeed(dw0, dw1);
  }

  #dataTarget(bytes: Uint8Array, at: number, dataBytes: number): Uint8Array | undefined {
    const flags = bytes[at + c2hData.offsetOf.flags]!;
    const cccid = u16(bytes, at + c2hData.offsetOf.cccid);
    const datao = u32(bytes, at + c2hData.offsetOf.datao);
    const datal = u32(bytes, at + c2hData.offsetOf.datal);
    const flight = this.#inFlight.find(cccid);
    const { command } = flight;
    const room = command.receive?.byteLength ?? 0;
    if (datal !== dataBytes || datao !== flight.receivedBytes || datao + datal > room) {
      throw new DriveProtocolError(`C2HData of ${datal} bytes at ${datao} for ${command.opcodeName} of ${room} bytes`);
    }
    flight.receivedBytes += datal;
    const isEnd = (flags & pduFlags.success) !== 0;
    if (isEnd && ((flags & pduFlags.last) === 0 || flight.receivedBytes !== room)) {
      throw new DriveProtocolError(`C2HData ends ${command.opcodeName} at ${flight.receivedBytes} of ${room} bytes`);
    }
    this.#arrivingId = cccid;
    this.#arrivingCompletes = isEnd;
    if (flight.abandoned || datal === room) return flight.abandoned ? undefined : command.receive;
    return command.receive?.subarray(datao, datao + datal);
  }

  #answerR2T(bytes: Uint8Array, from: number): void {
    const { cccid, ttag, r2to, r2tl } = r2t.decode(bytes, from);
    const flight = this.#inFlight.find(cccid);
    const data = flight.command.sendData ?? [];
    if (r2tl === 0 || r2to !== flight.sentBytes || r2to + r2tl > byteLengthOf(data)) {
      const { opcodeName } = flight.command;
      throw new DriveProtocolError(`R2T for ${r2tl} bytes at ${r2to} of ${opcodeName} with ${byteLengthOf(data)}`);
    }
    flight.sentBytes += r2tl;
    const end = r2to + r2tl;
    for (let at = r2to; at < end; at += this.#sendBytesMax) {
      const lengthBytes = Math.min(this.#sendBytesMax, end - at);
      const isLast = at + lengthBytes === end;
      const place = { commandId: cccid, tag: ttag, offset: at, lengthBytes, isLast };
      this.#output.h2cData(place, slices(data, at, lengthBytes));
    }
  }
}

const digestField = ({ header, data }: Digests): number =>
  (header ? digestBits.header : 0) | (data ? digestBits.data : 0);

const digestError = ({ opcodeName, subject }: Command): DriveDigestError => {
  const about = subject();
  return new DriveDigestError(`${opcodeName}${about === '' ? '' : ` (${about})`}: data does not fit its digest`);
};

/** Bytes [offset, offset + length) of a list of parts, without copying. */
function* slices(parts: readonly Uint8Array[], offset: number, length: number): Generator<Uint8Array> {
  let skip = offset;
  let left = length;
  for (const part of parts) {
    if (left === 0) return;
    if (skip >= part.byteLength) {
      skip -= part.byteLength;
      continue;
    }
    const piece = part.subarray(skip, skip + left);
    skip = 0;
    left -= piece.byteLength;
    yield piece;
  }
}

function fatalErrorText(bytes: Uint8Array, at: number): string {
  const { fes, fei } = c2hTermReq.decode(bytes, at);
  const name = Object.entries(fatalErrors).find(([, value]) => value === fes)?.[0] ?? 'unknown';
  return `fatal error ${fes} (${name}), information ${fei}`;
}

function unreachable(address: string, error: Error): DriveUnreachableError {
  const { code } = ((error.cause as NodeJS.ErrnoException | undefined) ?? error) as { code?: string };
  const reasons: Record<string, string> = {
    ENOENT: 'there is no such socket; start a drive with "attndrive start DIR"',
    ECONNREFUSED: 'nothing listens there; start a drive with "attndrive start DIR"',
    EACCES: 'no permission to use the socket',
    ENOTFOUND: 'no such host',
  };
  const reason = reasons[code ?? ''] ?? error.message;
  return new DriveUnreachableError(`cannot connect to a drive at ${address}: ${reason}`, { cause: error });
}

const u16 = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);
const u32 = (bytes: Uint8Array, at: number): number => (u16(bytes, at) | (u16(bytes, at + 2) << 16)) >>> 0;
