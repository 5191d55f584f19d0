/**
 * What the clients of the kill loop do, and what each must find afterwards. A lane has blocks or sequences of its own and
 * sends one command after another; it notes each before it sends it and when it is answered. So a kill leaves at most one
 * command of each lane of which nobody knows whether it was done.
 */
import assert from 'node:assert/strict';
import type { DriveClient, Sequence } from '../../client/index.ts';
import type { Random } from '../../daemon/base/random.ts';

const BLOCK_BYTES = 4096;
const LANE_BLOCKS = 96;
const COMMAND_BLOCKS_MAX = 8;
const SEQUENCES_MAX = 4;
const LAYERS = 2;
const KV_HEADS = 2;
const HEAD_DIM = 16;
const GROUP_TOKENS = 16;
/** Sequences are cut or reclaimed beyond it, so that the drive never fills up. */
const TOKENS_MAX = 150;
const ROW_ELEMENTS = KV_HEADS * HEAD_DIM;
export const laneShape = {
  layerCount: LAYERS,
  kvHeadCount: KV_HEADS,
  headDimK: HEAD_DIM,
  elementTypeK: 'f32',
  groupTokens: GROUP_TOKENS,
} as const;

export interface LaneOptions {
  readonly index: number;
  /** Its client has turned the write cache off. */
  readonly isWriteThrough: boolean;
  /** Of the daemon that runs: pages that it programmed are there although it is killed. */
  readonly arePagesKept: () => boolean;
}

export interface Lane {
  /** Sends one command, chosen at random; resolves when it is answered. */
  step(client: DriveClient): Promise<void>;
  /** Everything answered so far; when a flush that was sent now is answered, call the result. */
  beginFlush(): () => void;
  /** Reads everything back. Throws what breaks a promise; else what was found is what there is from here on. */
  verify(client: DriveClient): Promise<void>;
}

const below = (random: Random, end: number): number => random.nextUint32() % end;

interface BlockState {
  issued: number;
  completed: number;
  durable: number;
  /** Versions that stand for zeros. */
  readonly zeros: Set<number>;
}

export class BlockLane implements Lane {
  readonly #firstLba: number;
  readonly #random: Random;
  readonly #isWriteThrough: boolean;
  readonly #blocks: BlockState[];

  constructor(options: LaneOptions, random: Random) {
    this.#firstLba = options.index * LANE_BLOCKS;
    this.#isWriteThrough = options.isWriteThrough;
    this.#random = random;
    const fresh = (): BlockState => ({ issued: 0, completed: 0, durable: 0, zeros: new Set() });
    this.#blocks = Array.from({ length: LANE_BLOCKS }, fresh);
  }

  async step(client: DriveClient): Promise<void> {
    const count = 1 + below(this.#random, COMMAND_BLOCKS_MAX);
    const first = below(this.#random, LANE_BLOCKS - count);
    const blocks = this.#blocks.slice(first, first + count);
    const isZeros = below(this.#random, 10) === 0;
    const fua = !isZeros && below(this.#random, 5) === 0;
    const versions = blocks.map((block) => {
      if (isZeros) block.zeros.add(block.issued + 1);
      return ++block.issued;
    });
    const lba = this.#firstLba + first;
    if (isZeros) await client.block.deallocate([{ lba, blockCount: count }]);
    else {
      const content = versions.map((version, i) => blockContent(lba + i, version));
      await client.block.write(lba, Buffer.concat(content), { fua });
    }
    blocks.forEach((block, i) => {
      block.completed = versions[i]!;
      // A deallocation is a record of the log, which a killed process has written.
      if (fua || isZeros || this.#isWriteThrough) block.durable = block.completed;
    });
  }

  beginFlush(): () => void {
    const completed = this.#blocks.map((block) => block.completed);
    return () => this.#blocks.forEach((block, i) => (block.durable = Math.max(block.durable, completed[i]!)));
  }

  async verify(client: DriveClient): Promise<void> {
    const bytes = await client.block.read(this.#firstLba, LANE_BLOCKS);
    for (const [i, block] of this.#blocks.entries()) {
      const lba = this.#firstLba + i;
      const found = versionOf(bytes.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES), lba);
      const { durable, issued, zeros } = block;
      const version = found > 0 ? found : durable === 0 ? 0 : [...zeros].find((zero) => zero >= durable);
      const isAllowed = version !== undefined && version >= durable && version <= issued;
      assert.ok(isAllowed, `LBA ${lba} holds version ${found}; ${durable} was promised, ${issued} was sent last`);
      this.#blocks[i] = { issued, completed: version, durable: version, zeros };
    }
  }
}

/** LBA and version, over and over. Version 0: never written. */
function blockContent(lba: number, version: number): Uint8Array {
  const words = new Uint32Array(BLOCK_BYTES / 4);
  if (version > 0) for (let i = 0; i < words.length; i++) words[i] = i % 2 === 0 ? lba : version;
  return new Uint8Array(words.buffer);
}

function versionOf(bytes: Uint8Array, lba: number): number {
  const version = new DataView(bytes.buffer, bytes.byteOffset).getUint32(4, true);
  assert.equal(Buffer.compare(bytes, blockContent(lba, version)), 0, `LBA ${lba} is no whole version`);
  return version;
}

interface LayerState {
  /** Names of the tokens sent, whether answered or not. */
  tokens: number[];
  /** How many of them were answered. */
  answered: number;
  /** At least so many must be found. */
  floor: number;
  /** Truncates so far: a flush that was sent before one says nothing of what came after it. */
  cuts: number;
}

interface SequenceState {
  readonly id: bigint;
  readonly layers: LayerState[];
  /** A command whose answer never came. */
  pending: 'create' | 'reclaim' | { readonly layer: number; readonly length: number } | undefined;
}

export class SequenceLane implements Lane {
  readonly #index: number;
  readonly #random: Random;
  readonly #isWriteThrough: boolean;
  readonly #arePagesKept: () => boolean;
  #sequences: SequenceState[] = [];
  #nextId: bigint;
  #nextToken: number;

  constructor(options: LaneOptions, random: Random) {
    this.#index = options.index;
    this.#isWriteThrough = options.isWriteThrough;
    this.#arePagesKept = options.arePagesKept;
    this.#random = random;
    this.#nextId = BigInt(options.index + 1) << 32n;
    this.#nextToken = (options.index + 1) * 2 ** 22;
  }

  get #lastId(): bigint {
    return BigInt(this.#index + 2) << 32n;
  }

  async step(client: DriveClient): Promise<void> {
    const roll = below(this.#random, 100);
    const sequence = this.#sequences[below(this.#random, Math.max(1, this.#sequences.length))];
    if (sequence === undefined || (roll < 8 && this.#sequences.length < SEQUENCES_MAX)) return this.#create(client);
    const handle = await client.kv.open(sequence.id);
    const isLong = sequence.layers.some(({ tokens }) => tokens.length > TOKENS_MAX);
    if (roll < 75 && !isLong) return this.#append(client, handle, sequence, roll < 25);
    if (roll < 82 && this.#sequences.length < SEQUENCES_MAX) return this.#fork(handle, sequence);
    if (roll < 93) return this.#truncate(handle, sequence);
    sequence.pending = 'reclaim';
    await handle.reclaim();
    this.#sequences.splice(this.#sequences.indexOf(sequence), 1);
  }

  #begin(layers: LayerState[]): SequenceState {
    const sequence: SequenceState = { id: this.#nextId++, layers, pending: 'create' };
    this.#sequences.push(sequence);
    return sequence;
  }

  async #create(client: DriveClient): Promise<void> {
    const sequence = this.#begin(
      Array.from({ length: LAYERS }, () => ({ tokens: [], answered: 0, floor: 0, cuts: 0 })),
    );
    await client.kv.create(laneShape, { id: sequence.id, label: 'kill loop' });
    sequence.pending = undefined;
  }

  async #fork(handle: Sequence, parent: SequenceState): Promise<void> {
    const tokenCount = below(this.#random, parent.layers[0]!.tokens.length + 2);
    const layers = parent.layers.map(({ tokens, floor }) => {
      const shared = tokens.slice(0, tokenCount);
      return { tokens: shared, answered: shared.length, floor: Math.min(floor, shared.length), cuts: 0 };
    });
    const child = this.#begin(layers);
    await handle.fork({ id: child.id, tokenCount, label: 'kill loop' });
    child.pending = undefined;
    if (this.#isWriteThrough) for (const layer of child.layers) layer.floor = layer.answered;
  }

  /** By Append, or carried by ATTN. */
  async #append(client: DriveClient, sequence: Sequence, state: SequenceState, carried: boolean): Promise<void> {
    const layer = below(this.#random, LAYERS);
    const layerState = state.layers[layer]!;
    const position = layerState.tokens.length;
    const count = carried ? 1 : 1 + below(this.#random, 40);
    const fresh = Array.from({ length: count }, () => this.#nextToken++);
    layerState.tokens.push(...fresh);
    const keys = rowsOf(fresh, layer, 0);
    const values = rowsOf(fresh, layer, 1);
    const fua = !carried && below(this.#random, 5) === 0;
    if (carried) {
      const queries = new Float32Array(ROW_ELEMENTS).fill(0.5);
      const append = { position, keys, values };
      await client.attend([{ sequence, layer, queryHeadsPerKvHead: 1, queries, append }]);
    } else await sequence.append(layer, position, keys, values, { fua });
    const { length } = layerState.tokens;
    layerState.answered = length;
    // Whole groups are in pages, which a killed process has written, or with direct I/O may have had in its own memory.
    if (fua || this.#isWriteThrough) layerState.floor = length;
    else if (this.#arePagesKept()) layerState.floor = Math.max(layerState.floor, length - (length % GROUP_TOKENS));
  }

  async #truncate(handle: Sequence, state: SequenceState): Promise<void> {
    const layer = below(this.#random, LAYERS);
    const layerState = state.layers[layer]!;
    const length = below(this.#random, layerState.tokens.length + 1);
    state.pending = { layer, length };
    await handle.truncate(length, { layer });
    state.pending = undefined;
    layerState.tokens.length = length;
    layerState.answered = length;
    layerState.cuts++;
    layerState.floor = this.#isWriteThrough ? length : Math.min(layerState.floor, length);
  }

  beginFlush(): () => void {
    const seen = this.#sequences.map((sequence) => ({
      sequence,
      layers: sequence.layers.map(({ answered, cuts }) => ({ answered, cuts })),
      isSure: sequence.pending === undefined,
    }));
    return () => {
      for (const { sequence, layers, isSure } of seen) {
        if (!isSure) continue;
        sequence.layers.forEach((layer, i) => {
          if (layer.cuts === layers[i]!.cuts) layer.floor = Math.max(layer.floor, layers[i]!.answered);
        });
      }
    };
  }

  async verify(client: DriveClient): Promise<void> {
    const ids = new Set(
      (await client.kv.list()).filter((id) => id >= BigInt(this.#index + 1) << 32n && id < this.#lastId),
    );
    const found: SequenceState[] = [];
    for (const state of this.#sequences) {
      const isThere = ids.delete(state.id);
      if (!isThere)
        assert.ok(state.pending === 'create' || state.pending === 'reclaim', `sequence ${state.id} is gone`);
      else found.push(await verifySequence(client, state));
    }
    assert.equal(ids.size, 0, `sequences ${[...ids].join()} have come back`);
    this.#sequences = found;
  }
}

async function verifySequence(client: DriveClient, { id, layers, pending }: SequenceState): Promise<SequenceState> {
  const sequence = await client.kv.open(id);
  const { lengths } = await sequence.info();
  const verified: LayerState[] = [];
  for (const [layer, { tokens, floor }] of layers.entries()) {
    const length = lengths[layer]!;
    const isCut = typeof pending === 'object' && pending.layer === layer;
    const least = isCut ? Math.min(floor, pending.length) : floor;
    const what = `layer ${layer} of sequence ${id}`;
    assert.ok(
      length >= least && length <= tokens.length,
      `${what} has ${length} tokens, not ${least} to ${tokens.length}`,
    );
    const held = tokens.slice(0, length);
    if (length > 0) {
      const { keys, values } = await sequence.readBack({ layer });
      assert.deepEqual(keys, rowsOf(held, layer, 0), `keys of ${what}`);
      assert.deepEqual(values, rowsOf(held, layer, 1), `values of ${what}`);
    }
    verified.push({ tokens: held, answered: length, floor: length, cuts: 0 });
  }
  return { id, layers: verified, pending: undefined };
}

/** Every number tells whose it is. */
function rowsOf(tokens: readonly number[], layer: number, part: 0 | 1): Float32Array {
  const rows = new Float32Array(tokens.length * ROW_ELEMENTS);
  for (const [t, token] of tokens.entries()) {
    for (let i = 0; i < ROW_ELEMENTS; i++)
      rows[t * ROW_ELEMENTS + i] = (token % 2 ** 20) + layer / 4 + part / 8 + i / 1024;
  }
  return rows;
}
