import { type OpcodeRow, limits } from '../spec/index.ts';
import type { Association } from './association.ts';
import { byteLengthOf, type CommandFields, type CommandOptions, type Completion, encodeEntry } from './command.ts';
import type { Region } from './region.ts';
import type { RegionSpace } from './region-space.ts';

/** A command by what it does, before it is decided how its data travels. */
export interface Request extends CommandFields {
  readonly opcode: OpcodeRow;
  /** What it is about, for error messages. */
  readonly subject: () => string;
}

/** Where bytes are in a region. */
export interface RegionPlace {
  readonly region: Region;
  readonly offset: number;
}

/** A command under way. */
export interface Submitted {
  readonly completion: Promise<Completion>;
}

/** Largest piece that goes through a region at once. */
const REGION_PIECE_BYTES = limits.regionReadNowBytesMax;
/** Reads no larger than this come over the socket: a copy less than through a region. */
const SOCKET_READ_BYTES = 16_384;

/**
 * Moves the data of I/O commands by the shortest way: in the capsule if it fits, through a memory region if this client
 * shares memory with the drive, else in data PDUs.
 */
export class Transfers {
  readonly #association: Association;
  #regions: RegionSpace | undefined;

  constructor(association: Association, regions: RegionSpace | undefined) {
    this.#association = association;
    this.#regions = regions;
  }

  /** Memory shared with the drive, if there is any. */
  get regions(): RegionSpace | undefined {
    return this.#regions;
  }

  /** Whether the drive takes the data of commands in the order in which they are submitted. */
  get keepsOrder(): boolean {
    return this.regions !== undefined && this.#association.io.queueCount === 1;
  }

  /** It turned out that this process can't open them. */
  dropRegions(): void {
    this.#regions = undefined;
  }

  /** Most bytes that one command can carry, either way. */
  get pieceBytesMax(): number {
    return this.regions === undefined
      ? Math.min(this.#association.transferBytesMax, limits.keyedBlockBytesMax)
      : REGION_PIECE_BYTES;
  }

  /** Most bytes that one command can carry over the socket: MDTS. */
  get socketBytesMax(): number {
    return this.#association.transferBytesMax;
  }

  get inCapsuleBytesMax(): number {
    return this.#association.inCapsuleBytesMax;
  }

  /** A command without data. */
  execute(request: Request, options?: CommandOptions): Promise<Completion> {
    const entry = encodeEntry(request.opcode, request, { kind: 'none' });
    return this.#io({ entry, ...named(request) }, options);
  }

  /** A command with data for the drive: at most `pieceBytesMax` (what fits the capsule goes anyway). */
  async send(request: Request, data: readonly Uint8Array[], options?: CommandOptions): Promise<Completion> {
    return (await this.submit(request, data, options)).completion;
  }

  /** `send` that resolves once the command is submitted, and its data copied if the drive shares memory. */
  async submit(request: Request, data: readonly Uint8Array[], options?: CommandOptions): Promise<Submitted> {
    const length = byteLengthOf(data);
    if (length <= this.inCapsuleBytesMax) {
      const entry = encodeEntry(request.opcode, request, { kind: 'inCapsule', offset: 0, length });
      return { completion: this.#io({ entry, ...named(request), capsuleData: data }, options) };
    }
    this.#checkLength(request, length);
    if (this.regions === undefined) {
      const entry = encodeEntry(request.opcode, request, { kind: 'transport', length });
      return { completion: this.#io({ entry, ...named(request), sendData: data }, options) };
    }
    const { regions } = this;
    const slice = await regions.allocateTemporary(length);
    try {
      this.#checkOpen();
      let at = slice.offset;
      for (const part of data) {
        slice.region.write(at, part);
        at += part.byteLength;
      }
    } catch (error) {
      regions.releaseTemporary(slice);
      throw error;
    }
    const entry = encodeEntry(request.opcode, request, {
      kind: 'keyed',
      key: slice.region.key,
      offset: slice.offset,
      length,
    });
    return { completion: this.#io({ entry, ...named(request) }, options, () => regions.releaseTemporary(slice)) };
  }

  /** `submit` of `length` bytes that lie in a region already: nothing is copied, and nobody may change them meanwhile. */
  submitInPlace(request: Request, place: RegionPlace, length: number, options?: CommandOptions): Submitted {
    this.#checkLength(request, length);
    const { region, offset } = place;
    const entry = encodeEntry(request.opcode, request, { kind: 'keyed', key: region.key, offset, length });
    return { completion: this.#io({ entry, ...named(request) }, options) };
  }

  /** A command whose data fills `target`: at most `pieceBytesMax`. */
  async receive(
    request: Request,
    target: Uint8Array,
    options: CommandOptions & { mayBeShort?: boolean } = {},
  ): Promise<Completion> {
    const length = target.byteLength;
    this.#checkLength(request, length);
    if (this.regions === undefined || length <= SOCKET_READ_BYTES || options.mayBeShort === true) {
      const entry = encodeEntry(request.opcode, request, { kind: 'transport', length });
      const receiveMayBeShort = options.mayBeShort ?? false;
      return this.#io({ entry, ...named(request), receive: target, receiveMayBeShort }, options);
    }
    const { regions } = this;
    const slice = await regions.allocateTemporary(length);
    const { region, offset } = slice;
    const entry = encodeEntry(request.opcode, request, { kind: 'keyed', key: region.key, offset, length });
    let settled = false;
    let copied = false;
    const release = (): void => {
      if (settled && copied) regions.releaseTemporary(slice);
    };
    const onSettled = (): void => {
      settled = true;
      release();
    };
    try {
      const completion = await this.#io({ entry, ...named(request) }, options, onSettled);
      region.readInto(offset, target);
      return completion;
    } finally {
      copied = true;
      release();
    }
  }

  /** A command whose submission entry is made already. */
  #io(
    command: Parameters<Association['io']['execute']>[0],
    options?: CommandOptions,
    onSettled?: () => void,
  ): Promise<Completion> {
    return this.#association.io.execute(command, options, onSettled);
  }

  /** A region's file is closed when the association ends; what waited for room in it says so. */
  #checkOpen(): void {
    if (this.#association.end !== undefined) throw this.#association.end;
  }

  #checkLength({ opcode }: Request, length: number): void {
    if (length > this.pieceBytesMax)
      throw new RangeError(`${opcode.name} of ${length} bytes, at most ${this.pieceBytesMax}`);
  }
}

const named = ({ opcode, subject }: Request) => ({
  opcodeName: opcode.name,
  subject,
  deviceLatency: opcode.deviceLatency === true,
});
