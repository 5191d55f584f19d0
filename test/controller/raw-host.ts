import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { completionEntry, statusCodeOf } from '../../spec/completion-entry.ts';
import { crc32c } from '../../spec/crc32c.ts';
import { c2hTermReq, DIGEST_BYTES, digestBits, icReq, pduFlags, pduTypes } from '../../spec/pdu.ts';
import type { Sgl } from '../../spec/sgl.ts';
import {
  type CommandFields,
  connectBody,
  type ConnectDataFields,
  connectEntry,
  type ConnectFields,
  entryBytes,
  propertyGetEntry,
  propertySetEntry,
} from './submissions.ts';

export interface Pdu {
  readonly type: number;
  readonly flags: number;
  readonly header: Buffer;
  readonly data: Buffer;
}

export interface Completion {
  readonly dw0: number;
  readonly dw1: number;
  readonly sqHead: number;
  readonly commandId: number;
  /** SCT << 8 | SC; 0 is success. */
  readonly status: number;
  readonly doNotRetry: boolean;
  /** Data that came before the completion. */
  readonly data: Buffer;
}

export type { CommandFields } from './submissions.ts';

/** A host that is made of the tables of spec/ and nothing else: it can say wrong things too. */
export class RawHost {
  readonly socket: Socket;
  #buffer = Buffer.alloc(0);
  #pdus: Pdu[] = [];
  #taken = 0;
  #wake: (() => void) | undefined;
  #nextCommandId = 1;
  closed = false;
  ended = false;
  /** What ICResp granted: PDUs that are made carry digests, and those that come must. */
  digests = { header: false, data: false };

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.#cut();
      this.#wake?.();
    });
    socket.on('error', () => undefined);
    socket.on('end', () => {
      this.ended = true;
      this.#wake?.();
    });
    socket.on('close', () => {
      this.closed = true;
      this.#wake?.();
    });
  }

  /** `address` as `listen` returns it. */
  static async open(address: string): Promise<RawHost> {
    const tcp = /^tcp:(.*):(\d+)$/.exec(address);
    const socket = tcp
      ? connect({ host: tcp[1] as string, port: Number(tcp[2]), allowHalfOpen: true } as never)
      : connect({ path: address.slice('unix:'.length), allowHalfOpen: true } as never);
    await once(socket, 'connect');
    return new RawHost(socket);
  }

  #cut(): void {
    while (this.#buffer.length >= 8) {
      const plen = this.#buffer.readUInt32LE(4);
      if (this.#buffer.length < plen) return;
      const pdu = this.#buffer.subarray(0, plen);
      this.#buffer = this.#buffer.subarray(plen);
      this.#pdus.push(this.#parse(pdu));
    }
  }

  #parse(pdu: Buffer): Pdu {
    const [type, flags, hlen, pdo] = pdu as unknown as [number, number, number, number];
    const isTermReq = type === pduTypes.c2hTermReq.type;
    const hasDigests = !isTermReq && type !== pduTypes.icResp.type;
    const header = Buffer.from(pdu.subarray(0, hlen));
    if (hasDigests && this.digests.header) {
      assert.equal(flags & pduFlags.hdgst, pduFlags.hdgst, 'header digest flag');
      assert.equal(pdu.readUInt32LE(hlen), crc32c(header), 'header digest');
    }
    const dataAt = isTermReq ? hlen : pdo || pdu.length;
    if (!hasDigests || !this.digests.data || pdo === 0) {
      return { type, flags, header, data: Buffer.from(pdu.subarray(dataAt)) };
    }
    const data = Buffer.from(pdu.subarray(dataAt, -DIGEST_BYTES));
    assert.equal(flags & pduFlags.ddgst, pduFlags.ddgst, 'data digest flag');
    assert.equal(pdu.readUInt32LE(pdu.length - DIGEST_BYTES), crc32c(data), 'data digest');
    return { type, flags, header, data };
  }

  /** A PDU from its header of which flags, data offset and length are still to be filled in. */
  #frame(header: Buffer, data: Uint8Array): Buffer {
    const headerDigest = Buffer.alloc(this.digests.header ? DIGEST_BYTES : 0);
    const dataDigest = Buffer.alloc(this.digests.data && data.length > 0 ? DIGEST_BYTES : 0);
    header[1]! |= (headerDigest.length > 0 ? pduFlags.hdgst : 0) | (dataDigest.length > 0 ? pduFlags.ddgst : 0);
    header[3] = data.length > 0 ? header.length + headerDigest.length : 0;
    header.writeUInt32LE(header.length + headerDigest.length + data.length + dataDigest.length, 4);
    if (headerDigest.length > 0) headerDigest.writeUInt32LE(crc32c(header));
    if (dataDigest.length > 0) dataDigest.writeUInt32LE(crc32c(data));
    return Buffer.concat([header, headerDigest, data, dataDigest]);
  }

  write(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  /** The next PDU; undefined: the connection ended first. */
  async next(): Promise<Pdu | undefined> {
    for (;;) {
      const pdu = this.#pdus[this.#taken];
      if (pdu !== undefined) {
        this.#taken++;
        return pdu;
      }
      this.#pdus = [];
      this.#taken = 0;
      if (this.closed || this.ended) return undefined;
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
  }

  async untilClosed(): Promise<void> {
    while (!this.closed && !this.ended) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
  }

  close(): void {
    this.socket.destroy();
  }

  icReqBytes(fields: Partial<Parameters<typeof icReq.encode>[0]> = {}): Uint8Array {
    const { type, hlen } = pduTypes.icReq;
    return icReq.encode({ type, hlen, plen: hlen, ...fields });
  }

  async initialize(fields: Partial<Parameters<typeof icReq.encode>[0]> = {}): Promise<Pdu | undefined> {
    this.write(this.icReqBytes(fields));
    const response = await this.next();
    const dgst = response?.header[11] ?? 0;
    this.digests = { header: (dgst & digestBits.header) !== 0, data: (dgst & digestBits.data) !== 0 };
    return response;
  }

  commandId(): number {
    const id = this.#nextCommandId;
    this.#nextCommandId = (id % 0xfffe) + 1;
    return id;
  }

  entryBytes(fields: CommandFields, commandId: number): Uint8Array {
    return entryBytes(fields, commandId);
  }

  capsuleBytes(entry: Uint8Array, data: Uint8Array = new Uint8Array(0)): Buffer {
    const { type, hlen } = pduTypes.capsuleCmd;
    const header = Buffer.alloc(hlen);
    header[0] = type;
    header[2] = hlen;
    header.set(entry, 8);
    return this.#frame(header, data);
  }

  /** Sends a command with its data in the capsule, if it has any. Returns its command id. */
  send(fields: CommandFields, data?: Uint8Array): number {
    const commandId = this.commandId();
    const sgl: Sgl = data === undefined ? { kind: 'none' } : { kind: 'inCapsule', offset: 0, length: data.length };
    this.write(this.capsuleBytes(this.entryBytes({ sgl, ...fields }, commandId), data));
    return commandId;
  }

  /** Waits for the completion of one command when nothing else is in flight, answering R2Ts with `data`. */
  async completion(data: Uint8Array = new Uint8Array(0)): Promise<Completion> {
    const parts: Buffer[] = [];
    for (;;) {
      const pdu = await this.next();
      if (pdu === undefined) throw new Error('connection ended before the completion');
      if (pdu.type === pduTypes.c2hData.type) parts.push(pdu.data);
      else if (pdu.type === pduTypes.r2t.type) this.answerR2t(pdu, data);
      else if (pdu.type === pduTypes.capsuleResp.type) return completionOf(pdu, Buffer.concat(parts));
      else throw new Error(`PDU type ${pdu.type} instead of a completion: ${describeTermReq(pdu)}`);
    }
  }

  answerR2t(pdu: Pdu, data: Uint8Array, pieceBytes = 65_536): void {
    const commandId = pdu.header.readUInt16LE(8);
    const tag = pdu.header.readUInt16LE(10);
    const offset = pdu.header.readUInt32LE(12);
    const length = pdu.header.readUInt32LE(16);
    for (let at = 0; at < length; at += pieceBytes) {
      const piece = data.subarray(offset + at, offset + Math.min(at + pieceBytes, length));
      this.write(this.h2cDataBytes(commandId, tag, offset + at, piece, at + pieceBytes >= length));
    }
  }

  h2cDataBytes(commandId: number, tag: number, offset: number, data: Uint8Array, last: boolean): Buffer {
    const { type, hlen } = pduTypes.h2cData;
    const header = Buffer.alloc(hlen);
    header[0] = type;
    header[1] = last ? pduFlags.last : 0;
    header[2] = hlen;
    header.writeUInt16LE(commandId, 8);
    header.writeUInt16LE(tag, 10);
    header.writeUInt32LE(offset, 12);
    header.writeUInt32LE(data.length, 16);
    return this.#frame(header, data);
  }

  /** One command from start to end: write data in the capsule or by R2T, read data by C2HData. */
  async run(fields: CommandFields, data?: Uint8Array): Promise<Completion> {
    if (data !== undefined && data.length > 8192) {
      this.send({ ...fields, sgl: { kind: 'transport', length: data.length } });
      return this.completion(data);
    }
    this.send(fields, data);
    return this.completion();
  }

  /** A command that returns `length` bytes over the socket. */
  read(fields: CommandFields, length: number): Promise<Completion> {
    return this.run({ ...fields, sgl: { kind: 'transport', length } });
  }

  connectBytes(command: ConnectFields, data: ConnectDataFields): Buffer {
    return this.capsuleBytes(connectEntry(command, this.commandId()), connectBody(data));
  }

  async connect(command: ConnectFields, data: ConnectDataFields): Promise<Completion> {
    this.write(this.connectBytes(command, data));
    return this.completion();
  }

  propertyGet(offset: number, size: 0 | 1 = 0): Promise<Completion> {
    this.write(this.capsuleBytes(propertyGetEntry(offset, size, this.commandId())));
    return this.completion();
  }

  propertySet(offset: number, value: number, size: 0 | 1 = 0): Promise<Completion> {
    this.write(this.capsuleBytes(propertySetEntry(offset, value, size, this.commandId())));
    return this.completion();
  }
}

export function completionOf(pdu: Pdu, data: Buffer = Buffer.alloc(0)): Completion {
  const { dw0, dw1, sqHead, commandId, status } = completionEntry.decode(pdu.header, 8);
  return { dw0, dw1, sqHead, commandId, status: statusCodeOf(status), doNotRetry: status >>> 15 === 1, data };
}

export function describeTermReq(pdu: Pdu | undefined): string {
  if (pdu?.type !== pduTypes.c2hTermReq.type) return `PDU type ${pdu?.type}`;
  const { fes, fei } = c2hTermReq.decode(pdu.header);
  return `C2HTermReq FES ${fes} FEI ${fei}`;
}
