import {
  ALL_LAYERS,
  ALL_TOKENS,
  createDescriptor,
  DESCRIPTOR_VERSION,
  type ElementType,
  elementTypeOf,
  elementTypes,
  KV_CACHE_NSID,
  kvOpcodes,
  kvTransferBits,
  limits,
  packBits,
  querySelectors,
  rowSizeBytes,
  sequenceInfo,
} from '../spec/index.ts';
import { allocateRows, type AppendRows, placeOf, type RowPlace } from './append-rows.ts';
import type { CommandOptions } from './command.ts';
import { bytesOf, resolveElementType, type RowArray, rowArray } from './convert.ts';
import { DriveProtocolError } from './errors.ts';
import { OrderedWindow } from './ordered-window.ts';
import type { Request, Submitted, Transfers } from './transfers.ts';

/** What a sequence holds: fixed when it is created. */
export interface SequenceShape {
  readonly layerCount: number;
  readonly kvHeadCount: number;
  /** Elements of one K row and one V row: 8 to 256. */
  readonly headDimK: number;
  readonly headDimV: number;
  /** Types that K and V are stored in. */
  readonly elementTypeK: ElementType;
  readonly elementTypeV: ElementType;
  /** Tokens of one KV head's K (or V) that share a flash page. */
  readonly groupTokens: number;
}

export interface SequenceInfo {
  readonly id: bigint;
  readonly shape: SequenceShape;
  /** Tokens per layer. */
  readonly lengths: readonly number[];
  readonly label: string;
  /** 0: kept until reclaimed. */
  readonly leaseSeconds: number;
  /** The sequence it was forked from; 0n: none. */
  readonly parentId: bigint;
  /** Hash of the host NQN that created it. */
  readonly owner: bigint;
  readonly pageCount: number;
  readonly sharedPageCount: number;
  readonly paddingBytesPerPageK: number;
  readonly paddingBytesPerPageV: number;
  /** Tokens, over all layers, that lie in the tail buffer and in no flash page. */
  readonly bufferedTokenCount: number;
}

export interface SequenceOptions extends CommandOptions {
  /** For people; at most 128 bytes of UTF-8. */
  readonly label?: string | undefined;
  /** Reclaimed after this long without a command naming it; 0 (default): kept until reclaimed. */
  readonly leaseSeconds?: number | undefined;
  /** Id to give it; 0n (default): the drive chooses. */
  readonly id?: bigint | undefined;
}

export interface AppendOptions extends CommandOptions {
  /** Type of `keys` and `values`: needed for Uint16Array and Uint8Array unless the sequence stores that type. */
  readonly elementType?: ElementType | undefined;
  /** Rows lie as [head][token] instead of [token][head]. */
  readonly headMajor?: boolean | undefined;
  /** Resolve only once the tokens are durable. */
  readonly fua?: boolean | undefined;
}

export interface ReadBackOptions extends CommandOptions {
  readonly layer: number;
  /** Which rows; default both. */
  readonly part?: 'keys' | 'values' | 'both' | undefined;
  /** Tokens [tokenStart, tokenEnd); default all. */
  readonly tokenStart?: number | undefined;
  readonly tokenEnd?: number | undefined;
  /** KV heads [firstHead, firstHead + headCount); default all. */
  readonly firstHead?: number | undefined;
  readonly headCount?: number | undefined;
  /** Type to return; default as stored (of int8 and int4 the quantised rows, see `dequantise`). */
  readonly elementType?: ElementType | undefined;
  /** Rows as [head][token] instead of [token][head]. */
  readonly headMajor?: boolean | undefined;
  /** Arrays to fill instead of fresh ones: of the returned type, and of just the length that is read. */
  readonly into?: ReadBackResult | undefined;
}

export interface ReadBackResult {
  readonly keys?: RowArray;
  readonly values?: RowArray;
}

const PIECES_IN_FLIGHT = 4;
/** One that the drive works on, and one that waits while the next is copied: what a connection may have in flight. */
const APPENDS_IN_FLIGHT = 2;
/** Of a piece that goes alone. */
const LONE_PIECE_BYTES_MAX = 512 * 1024;
const partCodes = { keys: 1, values: 2 } as const;

/**
 * A handle on a sequence in the drive. It holds no data and no lock: several clients may have handles on one sequence,
 * and the sequence stays when they disconnect.
 */
export class Sequence {
  readonly id: bigint;
  readonly shape: SequenceShape;
  readonly #transfers: Transfers;

  constructor(sequence: { id: bigint; shape: SequenceShape }, modules: { transfers: Transfers }) {
    this.id = sequence.id;
    this.shape = sequence.shape;
    this.#transfers = modules.transfers;
  }

  /**
   * Appends tokens to one layer: `keys` and `values` are rows of all KV heads, as [token][head][dimension]. Resolves
   * with the layer's length. `position` is where the first token goes: the layer's length, or lower to repeat what is
   * there already (which succeeds if it is equal). Many tokens go as several commands, in order.
   *
   * DriveCommandError appendGap, appendConflict, layerRange, tokenRange, capacityExceeded, bufferFull, unknownSequence.
   */
  async append(
    layer: number,
    position: number,
    keys: RowArray,
    values: RowArray,
    options: AppendOptions = {},
  ): Promise<number> {
    const plan = this.#planAppend(keys, values, options);
    const target = {
      opcode: kvOpcodes.append,
      ...this.#target(),
      cdw12: packBits(kvTransferBits, {
        layer,
        elementType: plan.typeCode,
        headMajor: options.headMajor === true ? 1 : 0,
        fua: options.fua === true ? 1 : 0,
      }),
    };
    const { keepsOrder, pieceBytesMax } = this.#transfers;
    const window = new OrderedWindow(keepsOrder ? APPENDS_IN_FLIGHT : 1);
    // Pieces of head-major rows don't lie together.
    const place = options.headMajor === true ? undefined : placeOf(keys, values, this.#transfers);
    for (let from = 0; from < plan.tokenCount; ) {
      // The first pieces go one by one, until one has ended at the layer's end. From there on all behind a piece that fails fail,
      // too; before, they might repeat what is there, succeed, and add tokens behind a conflict.
      const isLone = keepsOrder && !window.isOpen;
      const pieceBytes = isLone ? Math.min(pieceBytesMax, LONE_PIECE_BYTES_MAX) : pieceBytesMax;
      const to = Math.min(plan.tokenCount, this.#pieceEnd(position + from, plan.bytesPerToken, pieceBytes) - position);
      const [first, tokenCount] = [position + from, to - from];
      const subject = (): string => `${this.#subject(layer)}, position ${first}, ${tokenCount} tokens`;
      const request = { ...target, subject, cdw13: first, cdw14: tokenCount };
      const submit = (): Promise<Submitted> | Submitted =>
        place === undefined
          ? this.#transfers.submit(request, plan.parts(from, to), options)
          : this.#submitInPlace({ ...request, place, from, tokenCount }, plan, options);
      await window.add(submit, ({ dw0 }) => dw0 === first + tokenCount);
      from = to;
    }
    return (await window.end())?.dw0 ?? position;
  }

  /**
   * Arrays for the keys and values of `tokenCount` tokens, of the types that the sequence stores or of `elementType`. Where the
   * client shares memory with the drive they lie in it: what is put into them is appended without being copied, and must not
   * be changed before `append` has ended. They may be used again and again. DriveLimitError: no room in shared memory.
   */
  allocateRows(tokenCount: number, options: { elementType?: ElementType } = {}): Promise<AppendRows> {
    if (!Number.isInteger(tokenCount) || tokenCount < 1) throw new RangeError(`rows of ${tokenCount} tokens`);
    const { kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV } = this.shape;
    const { elementType } = options;
    const types = { elementTypeK: elementType ?? elementTypeK, elementTypeV: elementType ?? elementTypeV };
    return allocateRows({ rowCount: tokenCount * kvHeadCount, headDimK, headDimV, ...types }, this.#transfers);
  }

  #submitInPlace(
    { place, from, tokenCount, ...request }: Request & { place: RowPlace; from: number; tokenCount: number },
    { rowBytes, bytesPerToken }: { rowBytes: readonly [number, number]; bytesPerToken: number },
    options: AppendOptions,
  ): Submitted {
    const before = from * this.shape.kvHeadCount;
    const keys = { region: place.keys.region, offset: place.keys.offset + before * rowBytes[0] };
    const cdw15 = place.distanceBytes + before * (rowBytes[1] - rowBytes[0]);
    return this.#transfers.submitInPlace({ ...request, cdw15 }, keys, tokenCount * bytesPerToken, options);
  }

  /** Copies stored rows out of the drive. */
  async readBack(options: ReadBackOptions): Promise<ReadBackResult> {
    const { kvHeadCount } = this.shape;
    const { firstHead = 0, tokenStart = 0, part = 'both', headMajor = false } = options;
    const headCount = options.headCount ?? kvHeadCount - firstHead;
    const tokenEnd = options.tokenEnd ?? (await this.info(options)).lengths[options.layer] ?? 0;
    const tokenCount = tokenEnd - tokenStart;
    if (!(tokenCount >= 0) || !(headCount >= 1) || firstHead + headCount > kvHeadCount) {
      const tokens = `tokens ${tokenStart} to ${tokenEnd}`;
      throw new RangeError(`${tokens}, heads ${firstHead} to ${firstHead + headCount} of ${kvHeadCount}`);
    }
    const window = { layer: options.layer, tokenStart, tokenCount, firstHead, headCount, headMajor };
    const read = (rows: 'keys' | 'values') => this.#readRows(rows, window, options);
    const [keys, values] = await Promise.all([
      part === 'values' ? undefined : read('keys'),
      part === 'keys' ? undefined : read('values'),
    ]);
    return { ...(keys === undefined ? {} : { keys }), ...(values === undefined ? {} : { values }) };
  }

  /**
   * A new sequence that shares the first `tokenCount` tokens of every layer (default all; fewer where a layer is
   * shorter). Pages are shared until one of the two changes.
   */
  async fork(options: SequenceOptions & { tokenCount?: number } = {}): Promise<Sequence> {
    const request: Request = {
      opcode: kvOpcodes.fork,
      subject: () => this.#subject(),
      ...this.#target(),
      cdw12: options.tokenCount ?? ALL_TOKENS,
    };
    const { dw0, dw1 } = await this.#transfers.send(request, [encodeCreate(undefined, options)], options);
    return new Sequence({ id: sequenceIdOf(dw0, dw1), shape: this.shape }, { transfers: this.#transfers });
  }

  /** Drops the tokens from `length` on, of one layer or of all. DriveCommandError tokenRange if a layer is shorter. */
  async truncate(length: number, options: CommandOptions & { layer?: number } = {}): Promise<void> {
    const layer = options.layer ?? ALL_LAYERS;
    const subject = (): string => `${this.#subject(options.layer)}, length ${length}`;
    const request = { opcode: kvOpcodes.truncate, subject, ...this.#target(), cdw12: layer, cdw13: length };
    await this.#transfers.execute(request, options);
  }

  /** Gives the sequence's space back. The handle is of no use afterwards. */
  async reclaim(options: CommandOptions = {}): Promise<void> {
    const request = { opcode: kvOpcodes.reclaim, subject: () => this.#subject(), ...this.#target() };
    await this.#transfers.execute(request, options);
  }

  /** Shape, lengths and what it occupies, as of now. */
  info(options: CommandOptions = {}): Promise<SequenceInfo> {
    return querySequence(this.#transfers, this.id, options);
  }

  #subject(layer?: number): string {
    return layer === undefined ? `sequence ${this.id}` : `sequence ${this.id}, layer ${layer}`;
  }

  #target() {
    return sequenceTarget(this.id);
  }

  #planAppend(keys: RowArray, values: RowArray, { elementType, headMajor = false }: AppendOptions) {
    const { kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV } = this.shape;
    const typeK = resolveElementType('keys', keys, elementType, elementTypeK);
    const typeV = resolveElementType('values', values, elementType, elementTypeV);
    const rowBytesK = rowSizeBytes(typeK, headDimK);
    const rowBytesV = rowSizeBytes(typeV, headDimV);
    const tokenCount = keys.byteLength / (kvHeadCount * rowBytesK);
    if (!Number.isInteger(tokenCount) || values.byteLength !== tokenCount * kvHeadCount * rowBytesV) {
      const rows = `rows of ${headDimK} and ${headDimV} for ${kvHeadCount} heads`;
      const unit = keys instanceof Uint8Array ? 'bytes' : 'elements';
      throw new RangeError(`${keys.length} key and ${values.length} value ${unit} are not whole tokens with ${rows}`);
    }
    const asStored = typeK === elementTypeK && typeV === elementTypeV;
    if (!asStored && typeK !== typeV)
      throw new TypeError(`keys are ${typeK} and values ${typeV}; both must be one type`);
    const rows = [
      { bytes: bytesOf(keys), rowBytes: rowBytesK },
      { bytes: bytesOf(values), rowBytes: rowBytesV },
    ];
    return {
      tokenCount,
      rowBytes: [rowBytesK, rowBytesV] as const,
      typeCode: asStored ? 0 : elementTypes[typeK].code,
      bytesPerToken: rows.reduce((sum, { rowBytes }) => sum + rowBytes * kvHeadCount, 0),
      parts: (from: number, to: number): Uint8Array[] =>
        rows.flatMap(({ bytes, rowBytes }) =>
          headMajor
            ? Array.from({ length: kvHeadCount }, (_, head) => {
                const start = head * tokenCount;
                return bytes.subarray((start + from) * rowBytes, (start + to) * rowBytes);
              })
            : [bytes.subarray(from * kvHeadCount * rowBytes, to * kvHeadCount * rowBytes)],
        ),
    };
  }

  /** Position at which a command that starts at `position` should end: whole groups if it can hold any. */
  #pieceEnd(position: number, bytesPerToken: number, bytesMax: number): number {
    const { groupTokens } = this.shape;
    const end = position + Math.max(1, Math.floor(bytesMax / bytesPerToken));
    const aligned = end - (end % groupTokens);
    return aligned > position ? aligned : end;
  }

  async #readRows(rows: 'keys' | 'values', window: ReadWindow, options: ReadBackOptions): Promise<RowArray> {
    const { shape } = this;
    const isKeys = rows === 'keys';
    const type = options.elementType ?? (isKeys ? shape.elementTypeK : shape.elementTypeV);
    const rowElements = isKeys ? shape.headDimK : shape.headDimV;
    const rowBytes = rowSizeBytes(type, rowElements);
    const fresh = (rowCount: number): RowArray => rowArray(type, rowCount, rowElements);
    const rowCount = window.tokenCount * window.headCount;
    const result = options.into?.[rows] ?? fresh(rowCount);
    if (result.byteLength !== rowCount * rowBytes || result.BYTES_PER_ELEMENT !== fresh(0).BYTES_PER_ELEMENT) {
      throw new RangeError(`into.${rows} has ${result.byteLength} bytes; ${rowCount * rowBytes} of ${type} are read`);
    }
    const target = bytesOf(result);
    const pieces = cutWindow(window, rowBytes, this.#transfers.pieceBytesMax);
    const typeCode = options.elementType === undefined ? 0 : elementTypes[type].code;
    let next = 0;
    const work = async (): Promise<void> => {
      for (let piece = pieces[next++]; piece !== undefined; piece = pieces[next++]) {
        const bytes = target.subarray(piece.offset, piece.offset + piece.tokenCount * piece.headCount * rowBytes);
        await this.#transfers.receive(this.#readBackRequest(partCodes[rows], typeCode, piece), bytes, options);
      }
    };
    await Promise.all(Array.from({ length: Math.min(PIECES_IN_FLIGHT, pieces.length) }, work));
    return result;
  }

  #readBackRequest(part: number, elementType: number, piece: ReadWindow): Request {
    const { layer, tokenStart, tokenCount, firstHead, headCount, headMajor } = piece;
    return {
      opcode: kvOpcodes.readBack,
      subject: () => `${this.#subject(layer)}, tokens ${tokenStart} to ${tokenStart + tokenCount}`,
      ...this.#target(),
      cdw12: packBits(kvTransferBits, { layer, elementType, headMajor: headMajor ? 1 : 0, part }),
      cdw13: tokenStart,
      cdw14: tokenCount,
      cdw15: (firstHead | (headCount << 16)) >>> 0,
    };
  }
}

interface ReadWindow {
  readonly layer: number;
  readonly tokenStart: number;
  readonly tokenCount: number;
  readonly firstHead: number;
  readonly headCount: number;
  readonly headMajor: boolean;
}

/** Pieces that each lie together in the result; `offset` is where, in bytes. */
function cutWindow(window: ReadWindow, rowBytes: number, bytesMax: number): (ReadWindow & { offset: number })[] {
  const { tokenStart, tokenCount, firstHead, headCount, headMajor } = window;
  if (tokenCount === 0) return [];
  if (tokenCount * headCount * rowBytes <= bytesMax) return [{ ...window, offset: 0 }];
  const pieces: (ReadWindow & { offset: number })[] = [];
  // Head-major results are contiguous within one head only; token-major ones across all heads.
  const heads = headMajor ? headCount : 1;
  const headsPerPiece = headMajor ? 1 : headCount;
  const step = Math.max(1, Math.floor(bytesMax / (headsPerPiece * rowBytes)));
  for (let head = 0; head < heads; head++) {
    for (let token = 0; token < tokenCount; token += step) {
      pieces.push({
        ...window,
        firstHead: firstHead + head,
        headCount: headsPerPiece,
        tokenStart: tokenStart + token,
        tokenCount: Math.min(step, tokenCount - token),
        offset: (head * tokenCount + token * headsPerPiece) * rowBytes,
      });
    }
  }
  return pieces;
}

export const sequenceIdOf = (dw0: number, dw1: number): bigint => (BigInt(dw1) << 32n) | BigInt(dw0);

/** Namespace and CDW10-11 of a command on a sequence. */
export const sequenceTarget = (id: bigint) => ({
  namespaceId: KV_CACHE_NSID,
  cdw10: Number(id & 0xffff_ffffn),
  cdw11: Number((id >> 32n) & 0xffff_ffffn),
});

/** Data of create; of fork without a shape. */
export function encodeCreate(shape: SequenceShape | undefined, options: SequenceOptions): Uint8Array {
  const { label = '', leaseSeconds = 0, id = 0n } = options;
  const shapeFields = shape && {
    layerCount: shape.layerCount,
    kvHeadCount: shape.kvHeadCount,
    headDimK: shape.headDimK,
    headDimV: shape.headDimV,
    elementTypeK: elementTypes[shape.elementTypeK].code,
    elementTypeV: elementTypes[shape.elementTypeV].code,
    groupTokens: shape.groupTokens,
  };
  return createDescriptor.encode({ version: DESCRIPTOR_VERSION, ...shapeFields, sequenceId: id, leaseSeconds, label });
}

export async function querySequence(transfers: Transfers, id: bigint, options: CommandOptions): Promise<SequenceInfo> {
  const { layerCountMax } = limits;
  const data = new Uint8Array(sequenceInfo.sizeBytes + 4 * layerCountMax);
  const request: Request = {
    opcode: kvOpcodes.query,
    subject: () => `sequence ${id}`,
    ...sequenceTarget(id),
    cdw12: querySelectors.sequence,
  };
  await transfers.receive(request, data, { ...options, mayBeShort: true });
  const info = sequenceInfo.decode(data);
  const elementTypeK = elementTypeOf(info.elementTypeK);
  const elementTypeV = elementTypeOf(info.elementTypeV);
  if (elementTypeK === undefined || elementTypeV === undefined || info.layerCount > layerCountMax) {
    throw new DriveProtocolError(`sequence ${id} of an unknown kind: types ${info.elementTypeK}, ${info.elementTypeV}`);
  }
  const lengths = new DataView(data.buffer, sequenceInfo.sizeBytes);
  const { layerCount, kvHeadCount, headDimK, headDimV, groupTokens } = info;
  return {
    id: info.sequenceId,
    shape: { layerCount, kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV, groupTokens },
    lengths: Array.from({ length: layerCount }, (_, layer) => lengths.getUint32(4 * layer, true)),
    label: info.label,
    leaseSeconds: info.leaseSeconds,
    parentId: info.parentSequenceId,
    owner: info.owner,
    pageCount: info.pageCount,
    sharedPageCount: info.sharedPageCount,
    paddingBytesPerPageK: info.paddingBytesPerPageK,
    paddingBytesPerPageV: info.paddingBytesPerPageV,
    bufferedTokenCount: info.bufferedTokenCount,
  };
}
