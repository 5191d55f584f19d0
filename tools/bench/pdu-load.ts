/**
 * Commands over one socket as PDUs, without the SDK: the same bytes, made and taken the same way, whether a drive is at the
 * other end or a process that only answers.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { connect, type NetConnectOpts, type Socket } from 'node:net';
import {
  capsuleCmd,
  capsuleResp,
  connectCommand,
  connectData,
  encodeSgl,
  FABRICS_OPCODE,
  fabricsTypes,
  icReq,
  PDU_COMMON_HEADER_BYTES,
  PDU_FORMAT_VERSION,
  pduTypes,
  SGL_FLAGS,
  statusCodeOf,
  submissionEntry,
} from '../../spec/index.ts';
import { CliError } from '../cli/cli-error.ts';
import type { BarePeer } from './bare-peer.ts';
import { answerBytes, COMMAND_ID_AT, peerHello, RESPONSE_ID_AT, RESPONSE_STATUS_AT } from './socket-traffic.ts';

const HEADER_BYTES = capsuleResp.sizeBytes;
const PLEN_AT = 4;
/** Low half of the first block, in the capsule. */
const CDW10_AT = capsuleCmd.offsetOf.entry + submissionEntry.offsetOf.cdw10;

/** What is sent again and again. */
export interface PduCommand {
  /** The submission entry; command id and, with `nextCdw10`, CDW10 are filled in. */
  readonly entry: Uint8Array;
  /** Data in the capsule. */
  readonly data?: Uint8Array;
  /** Bytes of data that come back. */
  readonly answerDataBytes: number;
  /** CDW10 of the next command. */
  readonly nextCdw10?: () => number;
}

/** The queue of a controller that somebody else has set up: one that is not in use. */
export interface QueuePlace {
  readonly connectOptions: NetConnectOpts;
  readonly controllerId: number;
  readonly queueId: number;
  readonly hostNqn: string;
  readonly subsystemNqn: string;
}

/** Keeps so many commands of one kind under way. */
export class PduLoad {
  readonly #socket: Socket;
  readonly #command: PduCommand;
  readonly #capsule: Buffer;
  /** One capsule for each command that may be sent at once; used again while the kernel takes all of it. */
  readonly #capsules: Buffer;
  readonly #freeIds: number[];
  readonly #header = new Uint8Array(HEADER_BYTES);
  #headerBytes = 0;
  #skippedBytes = 0;
  #unsentCount = 0;
  #openCount = 0;
  #end: { resolve: () => void; reject: (error: Error) => void } | undefined;

  /** A queue of the drive's. CliError if the drive refuses. */
  static async toDrive(place: QueuePlace, command: PduCommand, depth: number): Promise<PduLoad> {
    const load = new PduLoad(place.connectOptions, command, depth);
    await once(load.#socket, 'connect');
    const { type, hlen } = pduTypes.icReq;
    load.#socket.write(icReq.encode({ type, hlen, plen: hlen, pfv: PDU_FORMAT_VERSION }));
    await load.#answerOf(pduTypes.icResp.hlen);
    load.#socket.write(connectCapsule(place, depth + 1));
    const response = await load.#answerOf(capsuleResp.sizeBytes);
    checkStatus(response, 0);
    load.#socket.on('data', load.#take);
    return load;
  }

  static async toPeer(peer: BarePeer, command: PduCommand, depth: number): Promise<PduLoad> {
    const load = new PduLoad(peer.connectOptions, command, depth);
    await once(load.#socket, 'connect');
    const replyBytes = answerBytes(command.answerDataBytes);
    load.#socket.write(peerHello.encode({ requestBytes: load.#capsule.length, replyBytes, isPdus: 1 }));
    load.#socket.on('data', load.#take);
    return load;
  }

  private constructor(connectOptions: NetConnectOpts, command: PduCommand, depth: number) {
    this.#command = command;
    const dataBytes = command.data?.length ?? 0;
    this.#capsule = Buffer.alloc(capsuleCmd.sizeBytes + dataBytes);
    const { type, hlen } = pduTypes.capsuleCmd;
    const { entry } = command;
    const pdo = dataBytes === 0 ? 0 : hlen;
    capsuleCmd.encode({ type, hlen, pdo, plen: this.#capsule.length, entry }, this.#capsule);
    this.#capsule.set(command.data ?? [], capsuleCmd.sizeBytes);
    this.#capsules = Buffer.concat(Array.from({ length: depth }, () => this.#capsule));
    this.#freeIds = Array.from({ length: depth }, (_, id) => id);
    this.#socket = connect(connectOptions);
    this.#socket.on('close', () => this.#end?.reject(new CliError('the other side has ended the connection')));
    this.#socket.on('error', () => undefined);
  }

  /** Resolves when so many commands have succeeded. */
  run(count: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#end = { resolve, reject };
      this.#openCount = count;
      this.#unsentCount = count;
      this.#send();
    });
  }

  close(): void {
    this.#end = undefined;
    this.#socket.destroy();
  }

  #send(): void {
    const count = Math.min(this.#freeIds.length, this.#unsentCount);
    if (count === 0) return;
    this.#unsentCount -= count;
    const capsuleBytes = this.#capsule.length;
    const own = this.#capsules.subarray(0, count * capsuleBytes);
    const capsules = this.#socket.writableLength === 0 ? own : Buffer.from(own);
    const { nextCdw10 } = this.#command;
    for (let i = 0; i < count; i++) {
      const at = i * capsuleBytes;
      capsules.writeUInt16LE(this.#freeIds.pop()!, at + COMMAND_ID_AT);
      if (nextCdw10 !== undefined) capsules.writeUInt32LE(nextCdw10(), at + CDW10_AT);
    }
    this.#socket.write(capsules);
  }

  readonly #take = (chunk: Buffer): void => {
    try {
      for (let at = 0; at < chunk.length; ) at = this.#takePdu(chunk, at);
    } catch (error) {
      this.#end?.reject(error as Error);
      this.close();
      return;
    }
    this.#send();
    if (this.#openCount === 0) this.#end?.resolve();
  };

  /** Returns how far it came. */
  #takePdu(chunk: Buffer, start: number): number {
    const skipped = Math.min(this.#skippedBytes, chunk.length - start);
    this.#skippedBytes -= skipped;
    const at = start + skipped;
    if (this.#headerBytes === 0 && chunk.length - at >= HEADER_BYTES) {
      this.#takeHeader(chunk, at);
      return at + HEADER_BYTES;
    }
    const count = Math.min(HEADER_BYTES - this.#headerBytes, chunk.length - at);
    this.#header.set(chunk.subarray(at, at + count), this.#headerBytes);
    this.#headerBytes += count;
    if (this.#headerBytes === HEADER_BYTES) {
      this.#headerBytes = 0;
      this.#takeHeader(Buffer.from(this.#header.buffer), 0);
    }
    return at + count;
  }

  #takeHeader(bytes: Buffer, at: number): void {
    this.#skippedBytes = bytes.readUInt32LE(at + PLEN_AT) - HEADER_BYTES;
    const type = bytes[at];
    if (type === pduTypes.c2hData.type) return;
    if (type !== pduTypes.capsuleResp.type) throw new CliError(`PDU of type ${type} instead of an answer`);
    checkStatus(bytes, at);
    this.#freeIds.push(bytes.readUInt16LE(at + RESPONSE_ID_AT));
    this.#openCount--;
  }

  /** Of the handshake: so many bytes, which come by themselves. */
  async #answerOf(sizeBytes: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let received = 0; received < sizeBytes; ) {
      const [piece] = (await once(this.#socket, 'data')) as [Buffer];
      pieces.push(piece);
      received += piece.length;
    }
    return Buffer.concat(pieces);
  }
}

/** Of the response that begins at `bytes[at]`. */
function checkStatus(bytes: Buffer, at: number): void {
  const status = bytes.readUInt16LE(at + RESPONSE_STATUS_AT);
  if (statusCodeOf(status) !== 0) throw new CliError(`a command failed with status ${status.toString(16)}h`);
}

function connectCapsule({ controllerId, queueId, hostNqn, subsystemNqn }: QueuePlace, entryCount: number): Buffer {
  const fctype = fabricsTypes.connect.opcode;
  const fields = { opcode: FABRICS_OPCODE, flags: SGL_FLAGS, fctype, qid: queueId, sqsize: entryCount - 1 };
  const entry = connectCommand.encode(fields);
  encodeSgl({ kind: 'inCapsule', offset: 0, length: connectData.sizeBytes }, entry, connectCommand.offsetOf.sgl);
  const hostid = createHash('sha256').update(hostNqn).digest().subarray(0, 16);
  const data = connectData.encode({ hostid, cntlid: controllerId, subnqn: subsystemNqn, hostnqn: hostNqn });
  const header = Buffer.alloc(PDU_COMMON_HEADER_BYTES);
  const { type, hlen } = pduTypes.capsuleCmd;
  header.writeUInt32LE(type | (hlen << 16) | (hlen << 24), 0);
  header.writeUInt32LE(hlen + data.length, PLEN_AT);
  return Buffer.concat([header, entry, data]);
}
