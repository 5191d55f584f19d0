/** Random histories of sequences, checked against a plain model at every step and after every crash. */
import assert from 'node:assert/strict';
import { DriveError } from '../../daemon/base/errors.ts';
import type { LayerView, SequenceShape } from '../../daemon/kv/contract.ts';
import { elementTypeNames, floatTypeNames, isQuantised } from '../../spec/element-type.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { failsWith } from './assertions.ts';
import {
  appendRows,
  assertEqualBytes,
  assertTokens,
  createSequence,
  readRows,
  rowsOf,
  rowsOfTail,
  rowsOfView,
  type Opened,
} from './fixture.ts';
import type { Random } from './memory-drive.ts';
import { SequenceModel, type ModelSequence } from './sequence-model.ts';

export const PAGE_SIZE_BYTES = 4096;

/** A drive that a history is played on. */
export interface World {
  readonly opened: Opened;
  /** Operation number of the last record that the KV room wrote. */
  readonly recordOperation: number;
  /** Infinity: no fault. */
  failAfterPrograms(count: number): void;
  makeDurable(how: 'flush' | 'fua'): Promise<void>;
  /** Crashes and opens again. */
  crash(): Promise<Crash>;
  /** Holders of all pages. */
  holderCount(): number;
  close(): Promise<void>;
}

export interface Crash {
  readonly what: string;
  /** Operation records up to it survived. */
  readonly survivedOperation: number;
  /** Nothing was lost but memory. */
  readonly isWhole: boolean;
}

/** Plays histories from seeds; a failure tells what happened. */
export async function playHistory(world: World, random: Random, steps: number, name: string): Promise<void> {
  const history = new History(world, random);
  try {
    for (let i = 0; i < steps; i++) await history.step();
    await history.finish();
  } catch (error) {
    assert.ok(error instanceof Error);
    error.message += `\nhistory ${name}, ${steps} steps:\n${history.log.join('\n')}`;
    throw error;
  }
}

interface HeldView {
  readonly view: LayerView;
  readonly layer: number;
  readonly tailTokens: readonly number[];
}

/** One random history over a drive, checked step by step. */
class History {
  readonly #random: Random;
  readonly #world: World;
  #model = new SequenceModel();
  #views: HeldView[] = [];
  #nextToken = 0;
  readonly log: string[] = [];

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
  }

  #below(end: number): number {
    return Math.floor(this.#random() * end);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#below(items.length)] as T;
  }

  #shape(): SequenceShape {
    const dims = [8, 9, 16, 33, 64, 100, 256];
    const shape = {
      layerCount: 1 + this.#below(2),
      kvHeadCount: 1 + this.#below(3),
      headDimK: this.#pick(dims),
      headDimV: this.#pick(dims),
      elementTypeK: this.#pick(elementTypeNames),
      elementTypeV: this.#pick(elementTypeNames),
      groupTokens: 0,
    };
    const widest = Math.max(
      rowSizeBytes(shape.elementTypeK, shape.headDimK),
      rowSizeBytes(shape.elementTypeV, shape.headDimV),
    );
    const groupTokensMax = Math.floor(PAGE_SIZE_BYTES / widest);
    return { ...shape, groupTokens: this.#random() < 0.3 ? 0 : 1 + this.#below(Math.min(groupTokensMax, 9)) };
  }

  async step(): Promise<void> {
    const { live } = this.#model;
    const roll = this.#random();
    if (live.length === 0 || (live.length < 5 && roll < 0.08)) return this.#create();
    const sequence = this.#pick(live);
    if (roll < 0.5) return this.#append(sequence);
    if (roll < 0.57) return this.#repeat(sequence);
    if (roll < 0.65) return live.length < 7 ? this.#fork(sequence) : this.#reclaim(sequence);
    if (roll < 0.76) return this.#truncate(sequence);
    if (roll < 0.785) return this.#reclaim(sequence);
    if (roll < 0.79) return this.#clear(live);
    if (roll < 0.84) return this.#check(sequence);
    if (roll < 0.89) return this.#view(sequence);
    if (roll < 0.93) return this.#makeDurable();
    return this.#crash();
  }

  #create(): void {
    // Few different ids, so that reclaimed ones are asked for again.
    const wanted = BigInt(1 + this.#below(12));
    const isTaken = this.#model.live.some(({ id }) => id === wanted);
    const id = createSequence(this.#world.opened, this.#shape(), this.#random() < 0.5 && !isTaken ? wanted : 0n);
    this.log.push(`create ${id}`);
    this.#model.create(id, this.#world.opened.store.shape(id), this.#world.recordOperation);
  }

  async #append(sequence: ModelSequence): Promise<void> {
    const layer = this.#below(sequence.layers.length);
    const tokens = SequenceModel.tokens(sequence, layer);
    const { groupTokens } = sequence.shape;
    const count = this.#random() < 0.5 ? 1 + this.#below(3) : 1 + this.#below(Math.min(3 * groupTokens, 60));
    const repeated = this.#random() < 0.2 ? Math.min(tokens.length, this.#below(count)) : 0;
    const fresh = Array.from({ length: count - repeated }, () => this.#nextToken++);
    const position = tokens.length - repeated;
    const carried = [...tokens.slice(position), ...fresh];
    const options = { elementType: this.#pick([undefined, ...floatTypeNames]), headMajor: this.#random() < 0.5 };
    this.log.push(`append ${sequence.id}.${layer} at ${position}: ${carried.length}`);
    if (this.#random() < 0.05) this.#world.failAfterPrograms(this.#below(8));
    try {
      const length = await appendRows(this.#world.opened, sequence.id, layer, position, carried, options);
      tokens.push(...fresh);
      assert.equal(length, tokens.length);
    } catch (error) {
      assert.ok(error instanceof DriveError, String(error));
      this.log.push(error.message);
      if (error.code !== 'capacityExceeded') {
        assert.equal(error.code, 'writeFault', error.message);
        // If the record that abandons the generation is lost, groups that it did program may turn up.
        tokens.push(...fresh);
        this.#model.truncate(sequence, layer, tokens.length - fresh.length, this.#world.recordOperation);
      }
    }
    this.#world.failAfterPrograms(Number.POSITIVE_INFINITY);
  }

  async #repeat(sequence: ModelSequence): Promise<void> {
    const layer = this.#below(sequence.layers.length);
    const tokens = SequenceModel.tokens(sequence, layer);
    if (tokens.length === 0) return;
    const position = this.#below(tokens.length);
    const carried = tokens.slice(position, position + 1 + this.#below(tokens.length - position));
    const headMajor = this.#random() < 0.5;
    this.log.push(`repeat ${sequence.id}.${layer} at ${position}: ${carried.length}`);
    assert.equal(
      await appendRows(this.#world.opened, sequence.id, layer, position, carried, { headMajor }),
      tokens.length,
    );
    const at = this.#below(carried.length);
    carried[at] = 2 ** 30 + this.#nextToken++;
    await assert.rejects(
      appendRows(this.#world.opened, sequence.id, layer, position, carried, { headMajor }),
      failsWith('appendConflict', /differs/, position + at),
    );
  }

  async #fork(sequence: ModelSequence): Promise<void> {
    const longest = Math.max(...sequence.layers.map((_, layer) => SequenceModel.tokens(sequence, layer).length));
    const tokenCount = this.#below(longest + 2);
    const request = { id: 0n, label: 'fork', leaseSeconds: 0, owner: 1n };
    const id = await this.#world.opened.store.fork(sequence.id, tokenCount, request);
    this.log.push(`fork ${sequence.id} at ${tokenCount}: ${id}`);
    this.#model.fork(sequence, id, tokenCount, this.#world.recordOperation);
  }

  async #truncate(sequence: ModelSequence): Promise<void> {
    const lengths = sequence.layers.map((_, layer) => SequenceModel.tokens(sequence, layer).length);
    const layer = this.#random() < 0.5 ? undefined : this.#below(lengths.length);
    const limit = layer === undefined ? Math.min(...lengths) : (lengths[layer] as number);
    const length = this.#random() < 0.5 ? this.#below(limit + 1) : Math.max(0, limit - this.#below(4));
    const before = this.#world.recordOperation;
    this.log.push(`truncate ${sequence.id}.${layer ?? 'all'} to ${length}`);
    await this.#world.opened.store.truncate(sequence.id, layer, length);
    const operation = this.#world.recordOperation;
    if (operation > before) this.#model.truncate(sequence, layer, length, operation);
  }

  async #reclaim(sequence: ModelSequence): Promise<void> {
    this.log.push(`reclaim ${sequence.id}`);
    await this.#world.opened.store.reclaim(sequence.id);
    sequence.diedOperation = this.#world.recordOperation;
  }

  async #clear(live: readonly ModelSequence[]): Promise<void> {
    this.log.push('clear');
    await this.#world.opened.store.clear();
    for (const sequence of live) sequence.diedOperation = this.#world.recordOperation;
  }

  async #check(sequence: ModelSequence): Promise<void> {
    const layer = this.#below(sequence.layers.length);
    const tokens = SequenceModel.tokens(sequence, layer);
    await assertTokens(this.#world.opened, sequence.id, layer, tokens);
    if (tokens.length === 0) return;
    const start = this.#below(tokens.length);
    const some = tokens.slice(start, start + 1 + this.#below(tokens.length - start));
    const firstHead = this.#below(sequence.shape.kvHeadCount);
    const { elementTypeK, elementTypeV } = sequence.shape;
    const isExact = !isQuantised(elementTypeK) && !isQuantised(elementTypeV);
    const options = {
      // What was quantised is no more what it was made of.
      elementType: this.#pick([undefined, ...(isExact ? floatTypeNames : [])]),
      headMajor: this.#random() < 0.5,
      firstHead,
      headCount: 1 + this.#below(sequence.shape.kvHeadCount - firstHead),
      part: this.#pick([1, 2, 3] as const),
    };
    const found = await readRows(this.#world.opened, sequence.id, layer, start, some.length, options);
    assertEqualBytes(found, rowsOf(sequence.shape, layer, some, options), `part of ${sequence.id}.${layer}`);
  }

  async #view(sequence: ModelSequence): Promise<void> {
    const layer = this.#below(sequence.layers.length);
    const tokens = SequenceModel.tokens(sequence, layer);
    const view = this.#world.opened.store.view(sequence.id, layer);
    assert.equal(view.length, tokens.length);
    for (let head = 0; head < sequence.shape.kvHeadCount; head++) {
      for (const part of [0, 1] as const) {
        const expected = rowsOf(sequence.shape, layer, tokens, {
          firstHead: head,
          headCount: 1,
          part: part === 0 ? 1 : 2,
        });
        const found = await rowsOfView(this.#world.opened, view, head, part);
        assertEqualBytes(found, expected, `view of ${sequence.id}.${layer}`);
      }
    }
    this.#views.push({ view, layer, tailTokens: tokens.slice(view.flashTokenCount) });
    if (this.#views.length > 4) this.#releaseViews(2);
  }

  #releaseViews(count: number): void {
    for (const { view, layer, tailTokens } of this.#views.splice(0, count)) {
      const { shape } = view;
      for (let head = 0; head < shape.kvHeadCount; head++) {
        for (const part of [0, 1] as const) {
          const options = { firstHead: head, headCount: 1, part: part === 0 ? 1 : 2 } as const;
          const expected = rowsOf(shape, layer, tailTokens, options);
          const rowBytes = tailTokens.length === 0 ? 0 : expected.byteLength / tailTokens.length;
          const found = rowsOfTail(this.#world.opened.arena, view, head, part, rowBytes);
          assertEqualBytes(found, expected, 'tail of a held view');
        }
      }
      view.release();
    }
  }

  async #makeDurable(): Promise<void> {
    const how = this.#random() < 0.4 ? 'fua' : 'flush';
    this.log.push(how);
    await this.#world.makeDurable(how);
    this.#model.markDurable();
    if (how === 'flush') this.#assertCounters();
  }

  #assertCounters(): void {
    const { store } = this.#world.opened;
    const { live } = this.#model;
    let tokenCount = 0;
    let pageCount = 0;
    for (const { shape, layers } of live) {
      for (const generations of layers) {
        const { length } = generations.at(-1)!.tokens;
        tokenCount += length;
        pageCount += Math.floor(length / shape.groupTokens) * shape.kvHeadCount * 2;
      }
    }
    const snapshot = store.snapshot();
    assert.equal(snapshot.tokenCount, tokenCount);
    assert.equal(snapshot.heldPageCount, pageCount);
    assert.equal(this.#world.holderCount(), pageCount, 'holders of pages');
    assert.equal(snapshot.sequenceCount, live.length);
  }

  async #crash(): Promise<void> {
    this.#releaseViews(this.#views.length);
    const { what, survivedOperation, isWhole } = await this.#world.crash();
    this.log.push(what);
    await this.#adopt(survivedOperation, isWhole);
  }

  /** Checks what was found against what may be found, and goes on from there. */
  async #adopt(operation: number, wholeGroups: boolean): Promise<void> {
    const survivors = this.#model.survivors(operation);
    const { store } = this.#world.opened;
    assert.deepEqual(
      store.list(0n, 100),
      survivors.map(({ id }) => id).sort((a, b) => (a < b ? -1 : 1)),
    );
    const found = [];
    for (const sequence of survivors) {
      const { lengths } = store.summary(sequence.id);
      const tokens: number[][] = [];
      for (const [layer, length] of lengths.entries()) {
        const surviving = SequenceModel.surviving(sequence, layer, operation);
        const { groupTokens } = sequence.shape;
        const inPages = wholeGroups ? surviving.tokens.length - (surviving.tokens.length % groupTokens) : 0;
        const lengthMin = Math.max(surviving.lengthMin, inPages);
        assert.ok(length >= lengthMin, `${sequence.id}.${layer} has ${length}, at least ${lengthMin} were durable`);
        assert.ok(
          length <= surviving.tokens.length,
          `${sequence.id}.${layer} has ${length} > ${surviving.tokens.length}`,
        );
        tokens.push(surviving.tokens.slice(0, length));
        await assertTokens(this.#world.opened, sequence.id, layer, tokens[layer] as number[]);
      }
      found.push({ id: sequence.id, shape: sequence.shape, tokens });
    }
    assert.equal(store.snapshot().recovery.lostTokenCount, 0);
    this.#model = SequenceModel.found(found);
    this.#assertCounters();
  }

  async finish(): Promise<void> {
    for (const sequence of this.#model.live) {
      for (const layer of sequence.layers.keys()) {
        await assertTokens(this.#world.opened, sequence.id, layer, SequenceModel.tokens(sequence, layer));
      }
      await this.#reclaim(sequence);
    }
    this.#releaseViews(this.#views.length);
    assert.equal(this.#world.holderCount(), 0, 'every page is let go of');
    assert.equal(this.#world.opened.store.snapshot().tailBytes, 0, 'every tail is let go of');
    await this.#world.close();
  }
}
