import { connect, type OnReadOpts, type Socket } from 'node:net';
import {
  c2hData,
  c2hTermReq,
  completionEntry,
  crc32c,
  DIGEST_BYTES,
  dataOffset,
  digestBits,
  fatalErrors,
  h2cData,
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
import { byteLengthOf, type Command } from './command.ts';
import {
  DriveCommandError,
  DriveDigestError,
  DriveDisconnectedError,
  DriveProtocolError,
  DriveUnreachableError,
} from './errors.ts';
import { type CommandEnd, InFlight } from './in-flight.ts';
import { type Digests, NO_DIGESTS, PduParser, type PduSink } from './pdu-parser.ts';

const RECEIVE_BUFFER_BYTES = 131_072;
const CAPSULE_HEADER_BYTES = pduTypes.capsuleCmd.hlen;
const DATA_HEADER_BYTES = pduTypes.h2cData.hlen;
/** Capsules with no more data than this go to the kernel as one piece; larger ones as a list of pieces. */
const COPIED_CAPSULE_BYTES_MAX = 2048;
const MAXH2CDATA_MIN = 4096;

export type ConnectionEnd = DriveDisconnectedError | DriveProtocolError;

export interface QueueOptions {
  /** Entries of the submission queue; one fewer commands may be in flight. */
  readonly depth: number;
  /** Longest wait for the connection and for ICResp. */
  readonly timeoutMs: number;
  /** Asked for in ICReq; a drive that grants others is a protocol error. */
  readonly digests: Digests;
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
  #opened: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #end: ConnectionEnd | undefined;
  /** CPDA: alignment of data in the PDUs that we send. */
  #alignment = 0;
  #digests = NO_DIGESTS;
  #sendBytesMax = MAXH2CDATA_MIN;
  /** The command whose C2HData arrives, and whether that completes it. */
  #arriving = { commandId: 0, completes: false };

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
    const onread: OnReadOpts = {
      buffer: Buffer.allocUnsafeSlow(RECEIVE_BUFFER_BYTES),
      callback: (count, buffer) => {
        this.#receive(buffer.subarray(0, count));
        return true;
      },
    };
    this.#socket = connect({ ...connectOptions(address), onread });
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
    const { entry } = command;
    entry[submissionEntry.offsetOf.commandId] = commandId & 0xff;
    entry[submissionEntry.offsetOf.commandId + 1] = commandId >>> 8;
    this.#sendCapsule(entry, command.capsuleData);
  }

  /** Nobody waits for this command any more: its data is dropped, its credit comes back when the drive answers. */
  abandon(command: Command): void {
    this.#inFlight.abandon(command);
  }

  /** Ends the connection; whatever is in flight fails. */
  close(end: ConnectionEnd = new DriveDisconnectedError(this.address, 'closed by the client')): void {
    if (this.#end !== undefined) return;
    this.#socket.end();
    // A drive that doesn't close its side must not keep this process alive.
    this.#socket.unref();
    this.#fail(end);
  }

  /** A PDU header from the drive; returns where its data goes. */
  header(type: PduType, header: Uint8Array, dataBytes: number): Uint8Array | undefined {
    if (this.#opened !== undefined && type !== 'icResp' && type !== 'c2hTermReq') {
      throw new DriveProtocolError(`${pduTypes[type].name} before ICResp`);
    }
    switch (type) {
      case 'icResp':
        this.#acceptParameters(header);
        return undefined;
      case 'capsuleResp':
        this.#complete(header);
        return undefined;
      case 'c2hData':
        return this.#dataTarget(header, dataBytes);
      case 'r2t':
        this.#answerR2T(header);
        return undefined;
      default:
        throw new DriveProtocolError(`the drive ended the connection: ${fatalErrorText(header)}`);
    }
  }

  dataEnd(isIntact: boolean): void {
    const { commandId, completes } = this.#arriving;
    if (!isIntact) this.#inFlight.find(commandId).damaged = true;
    if (!completes) return;
    const flight = this.#inFlight.find(commandId);
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

  #acceptParameters(header: Uint8Array): void {
    const { pfv, cpda, dgst, maxh2cdata } = icResp.decode(header);
    if (this.#opened === undefined) throw new DriveProtocolError('a second ICResp');
    const isAsked = dgst === digestField(this.#options.digests);
    if (pfv !== PDU_FORMAT_VERSION || cpda > 31 || !isAsked || maxh2cdata < MAXH2CDATA_MIN) {
      throw new DriveProtocolError(`ICResp with pfv ${pfv}, cpda ${cpda}, dgst ${dgst}, maxh2cdata ${maxh2cdata}`);
    }
    this.#alignment = cpda;
    this.#digests = this.#options.digests;
    this.#parser.useDigests(this.#digests);
    this.#sendBytesMax = maxh2cdata;
    this.#opened.resolve();
  }

  #sendCapsule(entry: Uint8Array, data: readonly Uint8Array[] | undefined): void {
    const dataBytes = data === undefined ? 0 : byteLengthOf(data);
    const start = this.#dataStart(CAPSULE_HEADER_BYTES, dataBytes);
    const copied = dataBytes <= COPIED_CAPSULE_BYTES_MAX;
    const digestBytes = this.#dataDigestBytes(dataBytes);
    const head = Buffer.allocUnsafe(copied ? start + dataBytes + digestBytes : start);
    head.writeUInt32LE(
      pduTypes.capsuleCmd.type | (this.#digestFlags(dataBytes) << 8) | (CAPSULE_HEADER_BYTES << 16),
      0,
    );
    if (dataBytes > 0) head[3] = start;
    head.writeUInt32LE(start + dataBytes + digestBytes, 4);
    head.set(entry, PDU_COMMON_HEADER_BYTES);
    head.fill(0, CAPSULE_HEADER_BYTES, start);
    this.#sealHeader(head, CAPSULE_HEADER_BYTES);
    if (!copied) {
      this.#writeAll(head, data ?? [], dataBytes);
      return;
    }
    let at = start;
    for (const part of data ?? []) {
      head.set(part, at);
      at += part.byteLength;
    }
    if (digestBytes > 0) head.writeUInt32LE(crc32c(head.subarray(start, at)), at);
    this.#socket.write(head);
  }

  #digestFlags(dataBytes: number): number {
    return (this.#digests.header ? pduFlags.hdgst : 0) | (this.#digests.data && dataBytes > 0 ? pduFlags.ddgst : 0);
  }

  #dataDigestBytes(dataBytes: number): number {
    return this.#digests.data && dataBytes > 0 ? DIGEST_BYTES : 0;
  }

  /** Where data begins; without data, where the PDU ends. */
  #dataStart(hlen: number, dataBytes: number): number {
    if (dataBytes > 0) return dataOffset(hlen, this.#digests.header, this.#alignment);
    return hlen + (this.#digests.header ? DIGEST_BYTES : 0);
  }

  /** Puts the header digest behind a header that is complete. */
  #sealHeader(head: Buffer, hlen: number): void {
    if (this.#digests.header) head.writeUInt32LE(crc32c(head.subarray(0, hlen)), hlen);
  }

  #writeAll(head: Uint8Array, data: Iterable<Uint8Array>, dataBytes: number): void {
    const digestBytes = this.#dataDigestBytes(dataBytes);
    let sum = 0;
    this.#socket.cork();
    this.#socket.write(head);
    for (const part of data) {
      if (digestBytes > 0) sum = crc32c(part, sum);
      this.#socket.write(part);
    }
    if (digestBytes > 0) {
      const digest = Buffer.allocUnsafe(digestBytes);
      digest.writeUInt32LE(sum);
      this.#socket.write(digest);
    }
    this.#socket.uncork();
  }

  #complete(header: Uint8Array): void {
    const { dw0, dw1, commandId, status } = completionEntry.decode(header, PDU_COMMON_HEADER_BYTES);
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

  #dataTarget(header: Uint8Array, dataBytes: number): Uint8Array | undefined {
    const { flags, cccid, datao, datal } = c2hData.decode(header);
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
    this.#arriving = { commandId: cccid, completes: isEnd };
    return flight.abandoned ? undefined : command.receive?.subarray(datao, datao + datal);
  }

  #answerR2T(header: Uint8Array): void {
    const { cccid, ttag, r2to, r2tl } = r2t.decode(header);
    const flight = this.#inFlight.find(cccid);
    const data = flight.command.sendData ?? [];
    if (r2tl === 0 || r2to !== flight.sentBytes || r2to + r2tl > byteLengthOf(data)) {
      const { opcodeName } = flight.command;
      throw new DriveProtocolError(`R2T for ${r2tl} bytes at ${r2to} of ${opcodeName} with ${byteLengthOf(data)}`);
    }
    flight.sentBytes += r2tl;
    const end = r2to + r2tl;
    const { type } = pduTypes.h2cData;
    const start = this.#dataStart(DATA_HEADER_BYTES, r2tl);
    for (let at = r2to; at < end; at += this.#sendBytesMax) {
      const datal = Math.min(this.#sendBytesMax, end - at);
      const head = Buffer.alloc(start);
      const flags = this.#digestFlags(datal) | (at + datal === end ? pduFlags.last : 0);
      const plen = start + datal + this.#dataDigestBytes(datal);
      h2cData.encode({ type, flags, hlen: DATA_HEADER_BYTES, pdo: start, plen, cccid, ttag, datao: at, datal }, head);
      this.#sealHeader(head, DATA_HEADER_BYTES);
      this.#writeAll(head, slices(data, at, datal), datal);
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

function fatalErrorText(header: Uint8Array): string {
  const { fes, fei } = c2hTermReq.decode(header);
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
