import { attendOutputs, kvOpcodes, KV_CACHE_NSID, limits } from '../spec/index.ts';
import {
  type AttendEntryShape,
  type AttendLayout,
  type AttendOptions,
  encodeAttend,
  planAttend,
  PreparedEntry,
} from './attend-layout.ts';
import { type Command, type CommandOptions, type Completion, encodeEntry } from './command.ts';
import { DriveLimitError } from './errors.ts';
import type { RegionSlice } from './region-space.ts';
import type { Request, Transfers } from './transfers.ts';

/**
 * How queries go in and outputs come back.
 * - `region`: through memory shared with the drive; only command and completion cross the socket.
 * - `exchange`: queries in the capsule, outputs as data of the same command. For other machines; queries, carried
 *   rows and descriptors must fit the capsule.
 * - `slot`: as any command with data; outputs to a result slot, which a second command reads. For Linux passthrough.
 */
export type AttendPath = 'region' | 'exchange' | 'slot';

/** Numbers of this association's result slots. */
export class SlotNumbers {
  readonly #free = Array.from({ length: limits.resultSlotCountMax }, (_, slot) => limits.resultSlotCountMax - 1 - slot);

  take(): number {
    const slot = this.#free.pop();
    if (slot === undefined) throw new DriveLimitError(`all ${limits.resultSlotCountMax} result slots are in use`);
    return slot;
  }

  giveBack(slot: number): void {
    this.#free.push(slot);
  }
}

export interface PreparedAttendModules {
  readonly transfers: Transfers;
  readonly slots: SlotNumbers;
  /** Sends a command that is encoded already. */
  readonly execute: (
    command: Command,
    options: CommandOptions | undefined,
    onSettled: () => void,
  ) => Promise<Completion>;
}

/** Tokens attended to, over all entries (a token counts once for each entry), by where their K and V lay. */
export interface AttendCounts {
  readonly flashTokenCount: number;
  /** Undefined with `deviceTime`. */
  readonly bufferedTokenCount: number | undefined;
  /** With `deviceTime`: what the drive's profile says that the command took, in ns; 0 if the drive does not model it. */
  readonly deviceLatencyNs: number | undefined;
}

/**
 * An ATTN request made once and posted many times: descriptors, buffers and region space are its own, so that a post
 * writes the queries, sends 64 bytes and reads the outputs.
 *
 * ```text
 * prepare -> (write entries[i].queries) -> post -> (read entries[i].output) -> post -> ... -> release
 * ```
 * One post at a time. After a failed post its outputs are undefined.
 */
export class PreparedAttend {
  readonly entries: readonly PreparedEntry[];
  readonly path: AttendPath;
  readonly #data: Uint8Array;
  readonly #output: Uint8Array;
  readonly #modules: PreparedAttendModules;
  readonly #command: Command;
  readonly #slice: RegionSlice | undefined;
  readonly #slot: number | undefined;
  readonly #returnsDeviceTime: boolean;
  /** Of the post under way: the command in the drive, and the caller that takes the outputs. */
  #pendingCount = 0;
  #released = false;
  readonly #onCommandEnd = (): void => {
    // The caller gave up while the drive worked: what it put into the slot is taken out and dropped.
    if (this.#pendingCount === 1 && this.#slot !== undefined) {
      this.#readSlot(this.#slot, undefined).then(this.#finish, this.#finish);
    } else {
      this.#finish();
    }
  };
  readonly #finish = (): void => {
    this.#pendingCount--;
    if (this.#pendingCount === 0 && this.#released) this.#free();
  };

  /** RangeError if it can't be one command; DriveLimitError if there is no region space or result slot left. */
  static async prepare(
    entries: readonly AttendEntryShape[],
    options: AttendOptions & { readonly path?: AttendPath | undefined },
    modules: PreparedAttendModules,
  ): Promise<PreparedAttend> {
    const layout = planAttend(entries, options);
    const path = choosePath(layout, options.path, modules.transfers);
    if (path === 'region' && modules.transfers.regions !== undefined) {
      const slice = await modules.transfers.regions.allocate(layout.dataBytes + layout.outputBytes);
      return new PreparedAttend(entries, options, layout, path, modules, slice);
    }
    return new PreparedAttend(entries, options, layout, path, modules, undefined);
  }

  private constructor(
    entries: readonly AttendEntryShape[],
    options: AttendOptions,
    layout: AttendLayout,
    path: AttendPath,
    modules: PreparedAttendModules,
    slice: RegionSlice | undefined,
  ) {
    this.path = path;
    this.#returnsDeviceTime = options.deviceTime === true;
    this.#modules = modules;
    this.#slice = slice;
    this.#slot = path === 'slot' ? modules.slots.take() : undefined;
    const data = new ArrayBuffer(layout.dataBytes);
    const output = new ArrayBuffer(layout.outputBytes);
    this.#data = new Uint8Array(data);
    this.#output = new Uint8Array(output);
    this.entries = layout.entries.map((plan, index) => {
      return new PreparedEntry(plan, entries[index] as AttendEntryShape, options, { data, output, index });
    });
    const place =
      slice !== undefined
        ? { outKind: attendOutputs.region, outKey: slice.region.key, base: slice.offset + layout.dataBytes }
        : this.#slot !== undefined
          ? { outKind: attendOutputs.slot, outKey: this.#slot, base: 0 }
          : { outKind: attendOutputs.exchange, outKey: 0, base: 0 };
    encodeAttend(entries, options, layout, place, this.#data);
    this.#command = this.#encodeCommand();
  }

  /**
   * Appends what the entries carry, attends, and fills their outputs. With a signal it stops waiting; the request is
   * then busy until the drive has answered.
   *
   * DriveCommandError with the index of the entry in `dw0`; DriveDisconnectedError.
   */
  async post(options?: CommandOptions): Promise<AttendCounts> {
    if (this.#released) throw new TypeError('the prepared request was released');
    if (this.#pendingCount > 0)
      throw new TypeError('the prepared request is under way; prepare one for each at a time');
    const slice = this.#slice;
    slice?.region.write(slice.offset, this.#data);
    this.#pendingCount = 2;
    try {
      const { dw0, dw1 } = await this.#modules.execute(this.#command, options, this.#onCommandEnd);
      if (slice !== undefined) slice.region.readInto(slice.offset + this.#data.byteLength, this.#output);
      else if (this.#slot !== undefined) await this.#readSlot(this.#slot, options);
      const isDeviceTime = this.#returnsDeviceTime;
      if (isDeviceTime) options?.onDeviceLatency?.(dw1, this.#command.opcodeName);
      return {
        flashTokenCount: dw0,
        bufferedTokenCount: isDeviceTime ? undefined : dw1,
        deviceLatencyNs: isDeviceTime ? dw1 : undefined,
      };
    } finally {
      this.#finish();
    }
  }

  /** Gives back region space and result slot, at once or when the post under way has ended. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    if (this.#pendingCount === 0) this.#free();
  }

  #free(): void {
    if (this.#slice !== undefined) this.#modules.transfers.regions?.release(this.#slice);
    if (this.#slot !== undefined) this.#modules.slots.giveBack(this.#slot);
  }

  #encodeCommand(): Command {
    const subject = (): string =>
      this.entries.length === 1
        ? `sequence ${this.entries[0]?.sequence.id}, layer ${this.entries[0]?.layer}`
        : `${this.entries.length} entries`;
    const length = this.#data.byteLength;
    const fields = { namespaceId: KV_CACHE_NSID };
    const { attend, attendExchange } = kvOpcodes;
    if (this.#slice !== undefined) {
      const { region, offset } = this.#slice;
      const entry = encodeEntry(attend, fields, { kind: 'keyed', key: region.key, offset, length });
      return { entry, opcodeName: attend.name, subject };
    }
    const inCapsule = length <= this.#modules.transfers.inCapsuleBytesMax;
    if (this.#slot !== undefined) {
      const entry = encodeEntry(
        attend,
        fields,
        inCapsule ? { kind: 'inCapsule', offset: 0, length } : { kind: 'transport', length },
      );
      const data = [this.#data];
      return { entry, opcodeName: attend.name, subject, ...(inCapsule ? { capsuleData: data } : { sendData: data }) };
    }
    const entry = encodeEntry(
      attendExchange,
      { ...fields, cdw10: this.#output.byteLength },
      { kind: 'inCapsule', offset: 0, length },
    );
    return { entry, opcodeName: attendExchange.name, subject, capsuleData: [this.#data], receive: this.#output };
  }

  /** Reads the slot in pieces; the last one frees it. */
  async #readSlot(slot: number, options: CommandOptions | undefined): Promise<void> {
    const { transfers } = this.#modules;
    for (let at = 0; at < this.#output.byteLength; ) {
      const end = Math.min(at + transfers.pieceBytesMax, this.#output.byteLength);
      const request: Request = {
        opcode: kvOpcodes.attendResult,
        subject: () => `result slot ${slot}`,
        namespaceId: KV_CACHE_NSID,
        cdw10: slot,
        cdw11: at,
        cdw12: end < this.#output.byteLength ? 1 : 0,
      };
      await transfers.receive(request, this.#output.subarray(at, end), options);
      at = end;
    }
  }
}

function choosePath(layout: AttendLayout, asked: AttendPath | undefined, transfers: Transfers): AttendPath {
  const fitsCapsule = layout.dataBytes <= transfers.inCapsuleBytesMax;
  const fitsExchange = fitsCapsule && layout.outputBytes <= transfers.socketBytesMax;
  const path = asked ?? (transfers.regions !== undefined ? 'region' : fitsExchange ? 'exchange' : 'slot');
  const { dataBytes, outputBytes } = layout;
  if (path === 'region' && transfers.regions === undefined) {
    throw new RangeError('path region: this client shares no memory with the drive; use exchange or slot');
  }
  const bytesMax = path === 'region' ? limits.keyedBlockBytesMax : transfers.socketBytesMax;
  if (dataBytes > bytesMax || (path === 'exchange' && !fitsExchange)) {
    throw new RangeError(
      `${dataBytes} bytes of queries and ${outputBytes} of outputs do not fit one command (${path})`,
    );
  }
  return path;
}
