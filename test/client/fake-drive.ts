/**
 * A minimal NVMe/TCP controller in one process with the test, made from the tables of `spec/` and nothing of the
 * daemon. It is as awkward as the standard allows: it cuts data PDUs small, pads them, asks for data piecemeal, and
 * writes to the socket in scraps.
 */
import { closeSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  adminOpcodes,
  c2hData,
  capBits,
  capsuleResp,
  commonHeader,
  completionEntry,
  connectCommand,
  connectData,
  encodeStatus,
  type ErrorCode,
  errorTable,
  FABRICS_OPCODE,
  fabricsTypes,
  h2cData,
  icResp,
  identifyController,
  packBits64,
  parseSgl,
  pduFlags,
  pduTypes,
  propertyGetCommand,
  r2t,
  regionDescriptor,
  type StructValue,
  submissionEntry,
} from '../../spec/index.ts';

export interface FakeDriveOptions {
  readonly tcp?: boolean;
  /** In-capsule data of I/O queues. */
  readonly inCapsuleBytes?: number;
  readonly mdts?: number;
  readonly cpda?: number;
  readonly maxh2cdata?: number;
  /** Data bytes of one C2HData PDU. */
  readonly c2hBytes?: number;
  /** Bytes asked for by one R2T. */
  readonly r2tBytes?: number;
  /** Leave out the completion of reads. */
  readonly successFlag?: boolean;
  /** Bytes of one write to the socket. */
  readonly scrapBytes?: number;
  readonly regions?: boolean;
  readonly ioQueueCountMax?: number;
}

export type Entry = StructValue<(typeof submissionEntry)['fields']>;

/** One command as its handler sees it. */
export interface FakeCommand {
  readonly entry: Entry;
  readonly queueId: number;
  /** The host's data, however it travels. */
  take(): Promise<Uint8Array>;
  /** Gives data to the host, however it travels, and completes. */
  give(data: Uint8Array): void;
  complete(dw0?: number, dw1?: number): void;
  fail(code: ErrorCode, dw0?: number): void;
  readonly connection: FakeConnection;
}

export type FakeHandler = (command: FakeCommand) => void | Promise<void>;

interface FakeRegion {
  readonly fileDescriptor: number;
  readonly path: string;
  readonly sizeBytes: number;
}

/** Folders of drives that nobody has stopped: a test that fails on its way leaves nothing behind. */
const folders = new Set<string>();
process.once('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

export class FakeDrive {
  readonly folder = mkdtempSync(join(tmpdir(), 'attndrive-fake-'));
  readonly options: Required<FakeDriveOptions>;
  readonly regions = new Map<number, FakeRegion>();
  readonly connections = new Set<FakeConnection>();
  /** Names and queues of everything that came in, for tests to look at. */
  readonly log: { opcode: number; queueId: number; cdw10: number; cdw13: number; sgl: string; bytes: number }[] = [];
  /** Takes I/O commands; replaced by tests. */
  io: FakeHandler = (command) => command.fail('invalidOpcode');
  /** May take an admin command before the drive does: returns true if it did. */
  admin: (command: FakeCommand) => boolean = () => false;
  readonly #server: Server;
  #nextKey = 17;

  constructor(options: FakeDriveOptions = {}) {
    this.options = {
      tcp: false,
      inCapsuleBytes: 4096,
      mdts: 3,
      cpda: 0,
      maxh2cdata: 4096,
      c2hBytes: 1 << 20,
      r2tBytes: 1 << 20,
      successFlag: false,
      scrapBytes: 1 << 20,
      regions: false,
      ioQueueCountMax: 64,
      ...options,
    };
    folders.add(this.folder);
    this.#server = createServer((socket) => {
      const connection = new FakeConnection(this, socket);
      this.connections.add(connection);
      socket.on('close', () => this.connections.delete(connection));
    });
  }

  /** Listens; resolves with the address for the client. */
  async start(): Promise<string> {
    const path = join(this.folder, 'nvme.sock');
    await new Promise<void>((resolve) => {
      if (this.options.tcp) this.#server.listen(0, '127.0.0.1', resolve);
      else this.#server.listen(path, resolve);
    });
    return this.options.tcp ? `tcp:127.0.0.1:${(this.#server.address() as AddressInfo).port}` : `unix:${path}`;
  }

  async stop(): Promise<void> {
    for (const connection of this.connections) connection.socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    for (const { fileDescriptor } of this.regions.values()) closeSync(fileDescriptor);
    rmSync(this.folder, { recursive: true });
    folders.delete(this.folder);
  }

  createRegion(sizeBytes: number): Uint8Array {
    const key = this.#nextKey++;
    const path = join(this.folder, `region-${key}`);
    const fileDescriptor = openSync(path, 'wx+', 0o600);
    ftruncateSync(fileDescriptor, sizeBytes);
    this.regions.set(key, { fileDescriptor, path, sizeBytes });
    return regionDescriptor.encode({ version: 1, key, sizeBytes, path });
  }

  deleteRegion(key: number): void {
    const region = this.regions.get(key);
    if (region === undefined) throw new Error(`delete of region ${key}`);
    closeSync(region.fileDescriptor);
    this.regions.delete(key);
  }

  readRegion(key: number, offset: number, length: number): Uint8Array {
    const region = this.regions.get(key);
    if (region === undefined || offset + length > region.sizeBytes)
      throw new Error(`region ${key} ${offset}+${length}`);
    const data = new Uint8Array(length);
    readSync(region.fileDescriptor, data, 0, length, offset);
    return data;
  }

  writeRegion(key: number, offset: number, data: Uint8Array): void {
    const region = this.regions.get(key);
    if (region === undefined || offset + data.length > region.sizeBytes) throw new Error(`region ${key} ${offset}`);
    writeSync(region.fileDescriptor, data, 0, data.length, offset);
  }

  identity(): Uint8Array {
    return identifyController.encode({
      sn: 'FAKE1',
      mn: 'fake drive',
      mdts: this.options.mdts,
      maxcmd: 128,
      sgls: 1 | (this.options.regions ? 4 : 0),
      ioccsz: (64 + this.options.inCapsuleBytes) / 16,
      iorcsz: 1,
    });
  }
}

interface Transfer {
  readonly target: Uint8Array;
  readonly offset: number;
  received: number;
  readonly done: () => void;
}

export class FakeConnection {
  readonly socket: Socket;
  readonly #drive: FakeDrive;
  readonly #transfers = new Map<number, Transfer>();
  #buffer = Buffer.alloc(0);
  queueId = -1;

  constructor(drive: FakeDrive, socket: Socket) {
    this.#drive = drive;
    this.socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, chunk]);
      this.#takePdus();
    });
  }

  /** Writes bytes as they are, in scraps. */
  write(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; at += this.#drive.options.scrapBytes) {
      this.socket.write(bytes.slice(at, at + this.#drive.options.scrapBytes));
    }
  }

  completion(commandId: number, status: number, dw0 = 0, dw1 = 0): void {
    const { type, hlen } = pduTypes.capsuleResp;
    const entry = completionEntry.encode({ dw0, dw1, commandId, status });
    this.write(capsuleResp.encode({ type, hlen, plen: hlen, entry }));
  }

  /** One C2HData PDU. */
  data(commandId: number, offset: number, bytes: Uint8Array, flags: number): void {
    const { type, hlen } = pduTypes.c2hData;
    const pdo = 32;
    const pdu = new Uint8Array(pdo + bytes.length);
    const plen = pdu.length;
    c2hData.encode({ type, flags, hlen, pdo, plen, cccid: commandId, datao: offset, datal: bytes.length }, pdu);
    pdu.set(bytes, pdo);
    this.write(pdu);
  }

  /** One R2T; resolves when its data is here. */
  ask(commandId: number, target: Uint8Array, offset: number): Promise<void> {
    const { type, hlen } = pduTypes.r2t;
    this.write(
      r2t.encode({ type, hlen, plen: hlen, cccid: commandId, ttag: commandId, r2to: offset, r2tl: target.length }),
    );
    return new Promise((done) => this.#transfers.set(commandId, { target, offset, received: 0, done }));
  }

  #takePdus(): void {
    while (this.#buffer.length >= 8) {
      const { type, hlen, pdo, plen } = commonHeader.decode(this.#buffer);
      if (this.#buffer.length < plen) return;
      const pdu = Uint8Array.from(this.#buffer.subarray(0, plen));
      this.#buffer = this.#buffer.subarray(plen);
      const data = pdo === 0 ? new Uint8Array() : pdu.subarray(pdo);
      if (pdo !== 0 && pdo % ((this.#drive.options.cpda + 1) * 4) !== 0) throw new Error(`data at ${pdo}`);
      if (type === pduTypes.icReq.type) this.#parameters();
      else if (type === pduTypes.h2cData.type) this.#hostData(h2cData.decode(pdu), data);
      else if (type === pduTypes.capsuleCmd.type && hlen === 72) this.#command(pdu.slice(8, 72), data);
      else throw new Error(`PDU ${type} from the host`);
    }
  }

  #parameters(): void {
    const { type, hlen } = pduTypes.icResp;
    const { cpda, maxh2cdata } = this.#drive.options;
    this.write(icResp.encode({ type, hlen, plen: hlen, cpda, maxh2cdata }));
  }

  #hostData(header: StructValue<(typeof h2cData)['fields']>, data: Uint8Array): void {
    const transfer = this.#transfers.get(header.ttag);
    if (transfer === undefined || data.length !== header.datal || data.length > this.#drive.options.maxh2cdata) {
      throw new Error(`H2CData of ${data.length} for ${header.ttag}`);
    }
    if (header.datao !== transfer.offset + transfer.received) throw new Error(`H2CData at ${header.datao}`);
    transfer.target.set(data, transfer.received);
    transfer.received += data.length;
    const last = (header.flags & pduFlags.last) !== 0;
    if (last !== (transfer.received === transfer.target.length)) throw new Error('LAST flag at the wrong place');
    if (last) transfer.done();
  }

  #command(bytes: Uint8Array, capsule: Uint8Array): void {
    const entry = submissionEntry.decode(bytes);
    if (entry.opcode === FABRICS_OPCODE) {
      this.#fabrics(bytes, entry, capsule);
      return;
    }
    const sgl = parseSgl(bytes, 24);
    if (!sgl.ok) throw new Error(`SGL: ${sgl.error}`);
    const { value } = sgl;
    const length = value.kind === 'none' ? 0 : value.length;
    this.#drive.log.push({
      opcode: entry.opcode,
      queueId: this.queueId,
      cdw10: entry.cdw10,
      cdw13: entry.cdw13,
      sgl: value.kind,
      bytes: length,
    });
    const command: FakeCommand = {
      entry,
      queueId: this.queueId,
      connection: this,
      take: async () => {
        if (value.kind === 'inCapsule') return capsule.slice(0, value.length);
        if (value.kind === 'keyed') return this.#drive.readRegion(value.key, value.offset, value.length);
        const target = new Uint8Array(length);
        for (let at = 0; at < length; at += this.#drive.options.r2tBytes) {
          await this.ask(entry.commandId, target.subarray(at, at + this.#drive.options.r2tBytes), at);
        }
        return target;
      },
      give: (data) => {
        if (value.kind === 'keyed') {
          this.#drive.writeRegion(value.key, value.offset, data);
          this.completion(entry.commandId, 0);
        } else {
          this.#giveBySocket(entry.commandId, data);
        }
      },
      complete: (dw0, dw1) => this.completion(entry.commandId, 0, dw0, dw1),
      fail: (code, dw0) => {
        const { sct, sc } = errorTable[code];
        this.completion(entry.commandId, encodeStatus(sct, sc, !errorTable[code].retry), dw0);
      },
    };
    if (this.queueId > 0) void this.#drive.io(command);
    else if (!this.#drive.admin(command)) this.#adminCommand(command);
  }

  #giveBySocket(commandId: number, data: Uint8Array): void {
    const { c2hBytes, successFlag } = this.#drive.options;
    for (let at = 0; at < data.length; at += c2hBytes) {
      const last = at + c2hBytes >= data.length;
      const flags = last ? pduFlags.last | (successFlag ? pduFlags.success : 0) : 0;
      this.data(commandId, at, data.subarray(at, at + c2hBytes), flags);
    }
    if (!successFlag) this.completion(commandId, 0);
  }

  #fabrics(bytes: Uint8Array, entry: Entry, capsule: Uint8Array): void {
    const fctype = bytes[4];
    if (fctype === fabricsTypes.connect.opcode) {
      const { qid } = connectCommand.decode(bytes);
      const { cntlid, hostnqn, subnqn } = connectData.decode(capsule);
      this.queueId = qid;
      if (subnqn.endsWith('wrong')) {
        this.completion(entry.commandId, encodeStatus(1, 0x82), 256);
        return;
      }
      if (hostnqn === '' || cntlid !== (qid === 0 ? 0xffff : 5)) throw new Error(`Connect of ${cntlid}`);
      this.completion(entry.commandId, 0, 5);
    } else if (fctype === fabricsTypes.propertyGet.opcode) {
      const { ofst } = propertyGetCommand.decode(bytes);
      const cap = packBits64(capBits, { mqes: 127, cqr: 1, to: 2, cssNvm: 1, cssIocs: 1 });
      if (ofst === 0) this.completion(entry.commandId, 0, Number(cap & 0xffff_ffffn), Number(cap >> 32n));
      else this.completion(entry.commandId, 0, 1);
    } else {
      this.completion(entry.commandId, 0);
    }
  }

  #adminCommand(command: FakeCommand): void {
    const { entry } = command;
    switch (entry.opcode) {
      case adminOpcodes.identify.opcode:
        command.give(this.#drive.identity());
        break;
      case adminOpcodes.setFeatures.opcode: {
        const granted = Math.min(entry.cdw11 & 0xffff, this.#drive.options.ioQueueCountMax - 1);
        command.complete(granted | (granted << 16));
        break;
      }
      case adminOpcodes.regionCreate.opcode:
        command.give(this.#drive.createRegion(entry.cdw10));
        break;
      case adminOpcodes.regionDelete.opcode:
        this.#drive.deleteRegion(entry.cdw10);
        command.complete();
        break;
      default:
        command.complete();
    }
  }
}
