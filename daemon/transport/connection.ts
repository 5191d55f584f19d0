import type { Socket } from 'node:net';
import {
  digestBits,
  h2cData,
  icReq,
  PDU_FORMAT_VERSION,
  type PduType,
  pduFlags,
  pduTypes,
  TERM_DATA_BYTES_MAX,
} from '../../spec/pdu.ts';
import { assert } from '../base/assert.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type { LimitedLog } from '../base/limited-log.ts';
import type { Logger } from '../base/logger.ts';
import type { Limits, NetworkAddress } from '../commands/contract.ts';
import { type ConnectionSnapshot, QueueError, type QueueLink, type QueuePort } from '../controller/contract.ts';
import type { Subsystem } from '../controller/subsystem.ts';
import type { BusyPoll } from './busy-poll.ts';
import { type ConnectionState, transition } from './connection-state.ts';
import { PduError } from './pdu-error.ts';
import { bytesAt, type Checksum, PduReader, type PduReceiver } from './pdu-reader.ts';
import { PduWriter } from './pdu-writer.ts';

const TAG_COUNT = 65_536;
const HPDA_MAX = 31;
const ENTRY_AT = 8;

/** Data that the host was asked for with one R2T. */
interface Transfer {
  readonly commandId: number;
  /** Offset in the command's data of target's first byte. */
  readonly offset: number;
  readonly target: Uint8Array;
  receivedBytes: number;
  /** Every data digest so far fits. */
  isIntact: boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

export interface ConnectionOptions {
  readonly transport: 'unix' | 'tcp';
  readonly peer: string;
  readonly local: NetworkAddress | undefined;
  readonly limits: Limits;
}

/** Why a connection came to nothing. */
export const refusalReasons = ['limit', 'timeout', 'protocol'] as const;
export type RefusalReason = (typeof refusalReasons)[number];

export interface ConnectionModules {
  readonly socket: Socket;
  readonly subsystem: Subsystem;
  readonly clock: Clock;
  readonly logger: Logger;
  /** What any host can cause. */
  readonly warnings: LimitedLog;
  readonly busyPoll: BusyPoll;
  /** For header and data digests. */
  readonly checksum: Checksum;
  /** Called once, when the socket is gone. */
  readonly onClosed: (connection: Connection) => void;
}

/** One socket: the PDUs of one queue. */
export class Connection implements QueueLink, PduReceiver {
  readonly peer: string;
  readonly local: NetworkAddress | undefined;
  readonly #options: ConnectionOptions;
  readonly #limits: Limits;
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #warnings: LimitedLog;
  readonly #onClosed: (connection: Connection) => void;
  readonly #subsystem: Subsystem;
  readonly #busyPoll: BusyPoll;
  readonly #port: QueuePort;
  readonly #reader: PduReader;
  readonly #writer: PduWriter;
  readonly #transfers = new Map<number, Transfer>();
  readonly #acceptedAtMs: number;
  #state: ConnectionState = 'opening';
  #nextTag = 1;
  #receivedBytes = 0;
  #paused = false;
  #halfClosed = false;
  #portClosed = false;
  /** Why the drive ended the connection before it was part of an association. */
  #refusal: RefusalReason | undefined;
  /** Transfer that the H2CData PDU being read belongs to. */
  #current: { tag: number; transfer: Transfer; last: boolean } | undefined;
  #watchdog: Timer;
  /** When the host has to have authenticated. */
  #authenticateByNs = Number.POSITIVE_INFINITY;
  #seen = { pduCount: -1, progress: -1, stalledTicks: 0 };

  constructor(options: ConnectionOptions, modules: ConnectionModules) {
    this.peer = options.peer;
    this.local = options.local;
    this.#options = options;
    this.#limits = options.limits;
    this.#socket = modules.socket;
    this.#clock = modules.clock;
    this.#logger = modules.logger;
    this.#warnings = modules.warnings;
    this.#onClosed = modules.onClosed;
    this.#acceptedAtMs = modules.clock.wallMs();
    this.#reader = new PduReader(this, modules.checksum);
    this.#busyPoll = modules.busyPoll;
    const onFlushed = (): void => this.#answered();
    this.#writer = new PduWriter({ socket: modules.socket, checksum: modules.checksum, onFlushed });
    this.#subsystem = modules.subsystem;
    this.#port = modules.subsystem.attach(this);
    this.#watchdog = this.#clock.setTimer(this.#limits.handshakeTimeoutMs, this.#watch);
    const socket = modules.socket;
    if (options.transport === 'tcp') socket.setNoDelay(true);
    socket.on('data', this.#onData);
    socket.on('drain', this.#onDrain);
    socket.on('end', this.#onEnd);
    socket.on('error', (error) => this.#logger.debug({ peer: this.peer, error: error.message }, 'socket error'));
    socket.on('close', this.#onClose);
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Whether its host has got in, and it is not at its end. */
  get isUsed(): boolean {
    return this.#state === 'connected';
  }

  get #isOutside(): boolean {
    return this.#state === 'opening' || this.#state === 'initialized' || this.#state === 'authenticating';
  }

  /** Ends at once, for another that may be better: it has not got in yet. */
  giveWay(): void {
    if (this.#isOutside) this.#refusal = 'limit';
    this.destroy('the limit of connections is reached, and it has not got in');
  }

  get refusal(): RefusalReason | undefined {
    return this.#refusal;
  }

  snapshot(): ConnectionSnapshot {
    return {
      peer: this.peer,
      transport: this.#options.transport,
      state: this.#state,
      controllerId: this.#port.controllerId,
      queueId: this.#port.queueId,
      receivedBytes: this.#receivedBytes,
      sentBytes: this.#writer.sentBytes,
      pendingBytes: this.#writer.pendingBytes,
      entryCount: this.#port.entryCount,
      inFlightCount: this.#port.inFlightCount,
      commandCount: this.#port.commandCount,
      connectedAtMs: this.#acceptedAtMs,
    };
  }

  // --- QueueLink: what the queue asks of the connection ---

  receive(commandId: number, offset: number, target: Uint8Array): Promise<void> {
    if (this.#halfClosed || this.#portClosed) {
      return Promise.reject(new DriveError('aborted', 'the host has closed the connection'));
    }
    const tag = this.#takeTag();
    return new Promise((resolve, reject) => {
      this.#transfers.set(tag, { commandId, offset, target, receivedBytes: 0, isIntact: true, resolve, reject });
      this.#writer.r2t(commandId, tag, offset, target.length);
    });
  }

  send(commandId: number, source: Uint8Array): Promise<void> | void {
    if (this.#portClosed) return Promise.reject(new DriveError('aborted', 'the connection has ended'));
    return this.#writer.c2hData(commandId, source);
  }

  place(commandId: number, lengthBytes: number): Uint8Array | undefined {
    return this.#portClosed ? undefined : this.#writer.place(commandId, lengthBytes);
  }

  placed(): void {
    this.#writer.placed();
  }

  complete(dw0: number, dw1: number, sqHead: number, commandId: number, status: number): void {
    if (this.#portClosed) return;
    this.#writer.capsuleResp(dw0, dw1, sqHead, commandId, status);
    if (this.#halfClosed && this.#port.inFlightCount === 0) this.end('the host has closed its side');
  }

  authenticating(): void {
    this.#state = transition(this.#state, 'authenticating');
    this.#authenticateByNs = this.#clock.nowNs() + this.#limits.authenticationTimeoutMs * 1e6;
  }

  connected(): void {
    this.#state = transition(this.#state, 'connected');
  }

  end(reason: string): void {
    if (this.#state === 'terminating' || this.#state === 'closed') return;
    this.#logger.debug({ peer: this.peer, reason }, 'connection ends');
    this.#terminate(reason);
  }

  /** Ends at once, dropping what is pending. */
  destroy(reason: string): void {
    if (this.#state === 'closed') return;
    // Strangers are counted; a line for each would be a way to fill the disk.
    if (this.isUsed) this.#logger.info({ peer: this.peer, reason }, 'connection dropped');
    else this.#logger.debug({ peer: this.peer, reason }, 'connection dropped');
    this.#socket.destroy();
  }

  // --- PduReceiver: what the reader asks ---

  dataBytesMax(type: PduType): number {
    switch (type) {
      case 'capsuleCmd':
        return this.#port.capsuleDataBytesMax;
      case 'h2cData':
        return this.#limits.h2cDataBytesMax;
      case 'h2cTermReq':
        return TERM_DATA_BYTES_MAX;
      default:
        return 0;
    }
  }

  beginPdu(type: PduType, bytes: DataView, at: number, dataBytes: number): Uint8Array | undefined {
    if (type === 'h2cTermReq') return undefined;
    if ((type === 'icReq') !== (this.#state === 'opening')) {
      const header = headerOf(type, bytes, at).slice();
      throw new PduError('sequence', `${pduTypes[type].name} while ${this.#state}`, 0, header);
    }
    return type === 'h2cData' ? this.#beginTransferData(headerOf(type, bytes, at), dataBytes) : undefined;
  }

  endPdu(type: PduType, bytes: DataView, at: number, data: Uint8Array, isIntact: boolean): void {
    switch (type) {
      case 'capsuleCmd':
        this.#port.submit(bytes, at + ENTRY_AT, data, isIntact);
        return;
      case 'h2cData':
        this.#endTransferData(data.length, isIntact);
        return;
      case 'icReq':
        this.#initialize(headerOf(type, bytes, at));
        return;
      default: {
        const { fes, fei } = h2cTermFields(headerOf(type, bytes, at));
        this.#warnings.warn({ peer: this.peer, fes, fei }, 'host ended the connection with H2CTermReq');
        this.#terminate('H2CTermReq');
      }
    }
  }

  #initialize(header: Uint8Array): void {
    const request = icReq.decode(header);
    const refuse = (kind: 'invalidHeaderField' | 'unsupportedParameter', detail: string, info: number) =>
      new PduError(kind, detail, info, header.slice());
    if (request.pfv !== PDU_FORMAT_VERSION) {
      throw refuse('unsupportedParameter', `PFV ${request.pfv}`, icReq.offsetOf.pfv);
    }
    if (request.hpda > HPDA_MAX) throw refuse('invalidHeaderField', `HPDA ${request.hpda}`, icReq.offsetOf.hpda);
    if (request.dgst > 3) throw refuse('invalidHeaderField', `DGST ${request.dgst}`, icReq.offsetOf.dgst);
    const stray = icReq.firstNonZeroReserved(header);
    if (stray !== undefined) throw refuse('invalidHeaderField', `reserved byte ${stray} of ICReq`, stray);
    this.#writer.hostDataAlignment = request.hpda;
    const digests = {
      header: (request.dgst & digestBits.header) !== 0,
      data: (request.dgst & digestBits.data) !== 0,
    };
    this.#writer.icResp(this.#limits.h2cDataBytesMax, digests);
    this.#reader.useDigests(digests);
    this.#state = transition(this.#state, 'initialized');
  }

  #beginTransferData(header: Uint8Array, dataBytes: number): Uint8Array {
    const { cccid, ttag, datao, datal, flags } = h2cData.decode(header);
    const at = h2cData.offsetOf;
    const refuse = (kind: 'invalidHeaderField' | 'dataOutOfRange', detail: string, info: number) =>
      new PduError(kind, `H2CData: ${detail}`, info, header.slice());
    const stray = h2cData.firstNonZeroReserved(header);
    if (stray !== undefined) throw refuse('invalidHeaderField', `reserved byte ${stray}`, stray);
    const transfer = this.#transfers.get(ttag);
    if (transfer === undefined) throw refuse('invalidHeaderField', `TTAG ${ttag} not outstanding`, at.ttag);
    if (cccid !== transfer.commandId) throw refuse('invalidHeaderField', `CCCID ${cccid}`, at.cccid);
    if (datal !== dataBytes || datal === 0) {
      throw refuse('invalidHeaderField', `DATAL ${datal}, the PDU has ${dataBytes} bytes of data`, at.datal);
    }
    const expected = transfer.offset + transfer.receivedBytes;
    if (datao !== expected) throw refuse('dataOutOfRange', `DATAO ${datao}, expected ${expected}`, at.datao);
    const remaining = transfer.target.length - transfer.receivedBytes;
    if (datal > remaining) throw refuse('dataOutOfRange', `DATAL ${datal}, ${remaining} bytes asked for`, at.datal);
    const last = (flags & pduFlags.last) !== 0;
    if (last !== (datal === remaining)) {
      throw refuse('invalidHeaderField', `LAST_PDU ${last} with ${remaining - datal} bytes to go`, at.flags);
    }
    this.#current = { tag: ttag, transfer, last };
    return transfer.target.subarray(transfer.receivedBytes, transfer.receivedBytes + datal);
  }

  /** Data that does not fit its digest fails its command when all of it has come; the connection goes on. */
  #endTransferData(dataBytes: number, isIntact: boolean): void {
    assert(this.#current !== undefined, 'H2CData ends that never began');
    const { tag, transfer, last } = this.#current;
    this.#current = undefined;
    transfer.receivedBytes += dataBytes;
    transfer.isIntact &&= isIntact;
    if (!last) return;
    this.#transfers.delete(tag);
    if (transfer.isIntact) transfer.resolve();
    else transfer.reject(new DriveError('transientTransport', `data of command ${transfer.commandId}`));
  }

  #takeTag(): number {
    assert(this.#transfers.size < TAG_COUNT - 1, 'more transfers than tags');
    while (this.#transfers.has(this.#nextTag)) this.#nextTag = (this.#nextTag + 1) % TAG_COUNT;
    const tag = this.#nextTag;
    this.#nextTag = (tag + 1) % TAG_COUNT;
    return tag;
  }

  // --- socket events ---

  readonly #onData = (chunk: Buffer): void => {
    this.#receivedBytes += chunk.length;
    if (this.#state === 'terminating' || this.#state === 'closed') return;
    this.#port.beginBatch();
    this.#writer.beginBatch();
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.#fail(error);
    }
    this.#writer.flush();
    this.#port.endBatch();
    this.#answered();
    const { pendingBytes } = this.#writer;
    // Without `writableNeedDrain` there would be no `drain` event to go on at.
    if (!this.#paused && pendingBytes > this.#limits.connectionOutputBytesMax && this.#socket.writableNeedDrain) {
      this.#paused = true;
      this.#socket.pause();
    }
  };

  #answered(): void {
    if (this.isUsed) this.#busyPoll.touch();
  }

  readonly #onDrain = (): void => {
    if (!this.#paused) return;
    this.#paused = false;
    this.#socket.resume();
  };

  /** The host sends no more. Commands that need no more data finish, and their completions are still sent. */
  readonly #onEnd = (): void => {
    this.#halfClosed = true;
    this.#rejectTransfers();
    this.#port.inputEnded();
    if (this.#port.inFlightCount === 0 || this.#state === 'terminating') this.#socket.end();
  };

  readonly #onClose = (): void => {
    this.#state = transition(this.#state, 'closed');
    this.#watchdog.cancel();
    this.#closePort();
    this.#onClosed(this);
  };

  #fail(error: unknown): void {
    if (this.#isOutside) this.#refusal = 'protocol';
    if (error instanceof PduError) {
      this.#warnings.warn({ peer: this.peer, fes: error.fes, fei: error.info, detail: error.message }, 'malformed PDU');
      this.#writer.c2hTermReq(error.fes, error.info, error.header);
    } else if (error instanceof QueueError) {
      this.#warnings.warn({ peer: this.peer, detail: error.message }, 'queue rule broken');
      const { fes, info, header } = new PduError('sequence', error.message, 0, new Uint8Array(0));
      this.#writer.c2hTermReq(fes, info, header);
    } else {
      this.#subsystem.reportFatal(error);
    }
    this.#terminate('protocol error');
  }

  /**
   * Sends what is pending, then FIN, and reads on without looking until the host closes: a socket that is closed with
   * unread data would reset the connection and could take the last PDU with it.
   */
  #terminate(reason: string): void {
    this.#state = transition(this.#state, 'terminating');
    this.#writer.flush();
    this.#closePort();
    this.#socket.end();
    this.#socket.resume();
    this.#watchdog.cancel();
    this.#watchdog = this.#clock.setTimer(this.#limits.handshakeTimeoutMs, () => this.destroy(`${reason}; host stays`));
  }

  #closePort(): void {
    if (this.#portClosed) return;
    this.#portClosed = true;
    this.#writer.close();
    this.#rejectTransfers();
    this.#port.closed();
  }

  #rejectTransfers(): void {
    const transfers = [...this.#transfers.values()];
    this.#transfers.clear();
    for (const { reject } of transfers) reject(new DriveError('aborted', 'the connection ended'));
  }

  /** Looks now and then whether the connection still gets anywhere; see "Timeouts" in this room's README. */
  readonly #watch = (): void => {
    const timeoutMs = this.#limits.handshakeTimeoutMs;
    if (this.#state === 'opening' || this.#state === 'initialized') {
      this.#refusal = 'timeout';
      this.destroy(`no ICReq and Connect within ${timeoutMs} ms`);
      return;
    }
    if (this.#state === 'authenticating' && this.#clock.nowNs() >= this.#authenticateByNs) {
      this.#refusal = 'timeout';
      this.destroy(`not authenticated within ${this.#limits.authenticationTimeoutMs} ms`);
      return;
    }
    const { pduCount } = this.#reader;
    const waitsForHost = this.#reader.midPdu || this.#transfers.size > 0 || this.#halfClosed;
    if (waitsForHost && !this.#paused && pduCount === this.#seen.pduCount) {
      this.destroy(`stopped in the middle of a PDU or transfer for ${timeoutMs} ms`);
      return;
    }
    const stalled = this.#writer.pendingBytes > 0 && this.#writer.progress === this.#seen.progress;
    const stalledTicks = stalled ? this.#seen.stalledTicks + 1 : 0;
    if (stalledTicks * timeoutMs >= this.#limits.sendStallTimeoutMs) {
      this.destroy(`took no data for ${this.#limits.sendStallTimeoutMs} ms`);
      return;
    }
    this.#seen = { pduCount: waitsForHost ? pduCount : -1, progress: this.#writer.progress, stalledTicks };
    this.#watchdog = this.#clock.setTimer(timeoutMs, this.#watch);
  };
}

const headerOf = (type: PduType, bytes: DataView, at: number): Uint8Array => bytesAt(bytes, at, pduTypes[type].hlen);

const h2cTermFields = (header: Uint8Array): { fes: number; fei: number } => {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  return { fes: view.getUint16(8, true), fei: view.getUint32(10, true) };
};
