/**
 * What the KV namespace may hold.
 *
 * A sequence has a list of operations: create or fork, truncates, at last a reclaim or the end of its lease. A layer's
 * tokens are kept by *generation*: one begins with every operation that cuts the layer. Within one, tokens are only added.
 *
 * - What completed is seen by whatever is submitted later.
 * - After a crash some first part of a sequence's operations is there, and of each layer a first part of all tokens that
 *   its generation then was ever given, never in another order, the same for K and V of every head.
 * - At least what is durable is there: all that completed before a Flush was submitted that succeeded; the tokens of a
 *   layer up to those of an append with FUA; whatever was found after a start.
 * - Operations survive in their order, those of different sequences and deallocations of blocks too: if one that was
 *   submitted after another had completed is there, so is the other. (They are records of one log.)
 * - Format NVM is an operation of every sequence at once, done for all of them or for none.
 * - A killed process loses no operation that completed, and no whole group.
 * - An operation or append that failed may have been done; a lost connection tells nothing.
 */
import assert from 'node:assert/strict';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import type { RecordFate, Ticks } from './block-model.ts';

export interface Generation {
  /** Index of the operation that began it. */
  readonly operation: number;
  /** All that it was given, also what may not have arrived. */
  readonly tokens: number[];
  /** Tokens that the drive has acknowledged. */
  length: number;
  /** Tokens that are there after a crash. */
  durableLength: number;
}

export interface SequenceOperation {
  readonly kind: 'create' | 'fork' | 'truncate' | 'abandon' | 'reclaim' | 'expire' | 'format';
  readonly submitted: number;
  /** Infinity: on its way, or nobody knows. */
  completed: number;
}

/** The drive looks for ended leases every second. */
const EXPIRY_NS = 2.1e9;
const PENDING = Number.POSITIVE_INFINITY;
const isEnd = ({ kind }: SequenceOperation): boolean => kind === 'reclaim' || kind === 'expire' || kind === 'format';

export class ModelSequence {
  readonly uid: number;
  readonly shape: SequenceShape;
  readonly leaseSeconds: number;
  /** 0n until the drive has said it. */
  id: bigint;
  readonly operations: SequenceOperation[] = [];
  /** So many of them are durable. */
  durableCount = 0;
  readonly layers: Generation[][];
  /** Commands that name it are in flight: readers, appends by layer, and one that changes all of it. */
  readerCount = 0;
  readonly appending = new Set<number>();
  isChanging = false;
  /** A command's connection was lost, or it failed halfway: what holds now is known after the next start. */
  isUnsettled = false;
  /** Cells of its pages have rotted: reads of them fail. Forks hold the same pages. */
  isRotten = false;
  /** Its cells had rotted when it was found, and it may be one of several: nobody knows which. */
  isUnknown = false;
  /** Latest moment at which a command may have named it. */
  touchedAtNs = 0;
  /** Latest submission of a command that named it and succeeded: the drive has taken it later. */
  namedAtNs = 0;

  constructor(fields: { uid: number; id: bigint; shape: SequenceShape; leaseSeconds: number }) {
    this.uid = fields.uid;
    this.id = fields.id;
    this.shape = fields.shape;
    this.leaseSeconds = fields.leaseSeconds;
    this.layers = Array.from({ length: fields.shape.layerCount }, () => []);
  }

  /** Tells sequences apart that had the same id one after the other. */
  get label(): string {
    return `s${this.uid}`;
  }

  get isBorn(): boolean {
    return this.operations[0]!.completed < PENDING;
  }

  get isEnded(): boolean {
    const last = this.operations.at(-1);
    return last !== undefined && isEnd(last);
  }

  /** Its end is acknowledged: the id is free. */
  get isReclaimed(): boolean {
    return this.isEnded && this.operations.at(-1)!.completed < PENDING;
  }

  get isIdle(): boolean {
    return this.readerCount === 0 && this.appending.size === 0 && !this.isChanging;
  }

  generation(layer: number): Generation {
    return this.layers[layer]!.at(-1)!;
  }

  length(layer: number): number {
    return this.generation(layer).length;
  }

  /** Its lease has ended by `nowNs`, and the drive has had time to see it. */
  mustExpire(nowNs: number): boolean {
    return this.leaseSeconds > 0 && nowNs - this.touchedAtNs >= this.leaseSeconds * 1e9 + EXPIRY_NS;
  }

  /** Its lease may have ended by `nowNs`. */
  mayExpire(nowNs: number): boolean {
    return this.leaseSeconds > 0 && nowNs - this.namedAtNs >= this.leaseSeconds * 1e9;
  }

  begin(kind: SequenceOperation['kind'], submitted: number): SequenceOperation {
    const operation = { kind, submitted, completed: PENDING };
    this.operations.push(operation);
    return operation;
  }

  /** A new generation of a layer: its first `length` tokens. It belongs to the last operation. */
  cut(layer: number, length: number): void {
    const { tokens, durableLength } = this.generation(layer);
    this.layers[layer]!.push({
      operation: this.operations.length - 1,
      tokens: tokens.slice(0, length),
      length,
      durableLength: Math.min(durableLength, length),
    });
  }

  /** An operation was refused: it never was. After it the sequence may have ended, and nothing else. */
  undo(operation: SequenceOperation): void {
    const index = this.operations.indexOf(operation);
    this.operations.splice(index, 1);
    for (const generations of this.layers) {
      if (generations.at(-1)?.operation === index) generations.pop();
    }
  }

  describe(): string {
    const operations = this.operations.map(
      ({ kind, submitted, completed }, i) =>
        `${kind} (${submitted} to ${completed}${i < this.durableCount ? ', durable' : ''})`,
    );
    const layers = this.layers.map(
      (generations, layer) =>
        `layer ${layer}: ${generations
          .map((g) => `from operation ${g.operation} ${g.length}/${g.tokens.length} tokens, ${g.durableLength} durable`)
          .join('; ')}`,
    );
    return `sequence ${this.id} ${this.label}: ${operations.join(', ')}; ${layers.join('; ')}`;
  }
}

/** What a start has found of one sequence. */
export interface FoundSequence {
  readonly id: bigint;
  readonly uid: number;
  readonly lengths: readonly number[];
  /** Whether all tokens of a layer are these. */
  readonly holds: (layer: number, tokens: readonly number[]) => boolean;
  /** False: `holds` says yes to anything. */
  readonly isReadable: (layer: number) => boolean;
}

/** What will be durable. */
export type FlushScope = readonly {
  readonly sequence: ModelSequence;
  readonly operationCount: number;
  readonly layers: readonly { readonly generation: Generation; readonly length: number }[];
}[];

export interface FormattedSequences {
  /** All that are there or may be. */
  readonly all: readonly ModelSequence[];
  /** Those that end by it, if it is done. */
  readonly ended: readonly ModelSequence[];
}

export class KvModel {
  sequences: ModelSequence[] = [];
  readonly #ticks: Ticks;
  /** Ids that the drive chose. */
  readonly #chosenIds = new Set<bigint>();
  #nextUid = 1;
  #nextToken = 1;

  constructor(ticks: Ticks) {
    this.#ticks = ticks;
  }

  nextTokens(count: number): number[] {
    return Array.from({ length: count }, () => this.#nextToken++);
  }

  /** Those that the drive has acknowledged and not been told to reclaim. */
  get live(): ModelSequence[] {
    return this.sequences.filter((sequence) => sequence.isBorn && !sequence.isEnded);
  }

  /** A create on its way. */
  create(shape: SequenceShape, id: bigint, leaseSeconds: number, nowNs: number): ModelSequence {
    const sequence = new ModelSequence({ uid: this.#nextUid++, id, shape, leaseSeconds });
    sequence.begin('create', this.#ticks.next());
    for (const generations of sequence.layers) {
      generations.push({ operation: 0, tokens: [], length: 0, durableLength: 0 });
    }
    sequence.namedAtNs = nowNs;
    this.sequences.push(sequence);
    return sequence;
  }

  /** A fork on its way. Nobody appends to the parent meanwhile. */
  fork(parent: ModelSequence, tokenCount: number, leaseSeconds: number, nowNs: number): ModelSequence {
    const { shape } = parent;
    const sequence = new ModelSequence({ uid: this.#nextUid++, id: 0n, shape, leaseSeconds });
    sequence.begin('fork', this.#ticks.next());
    sequence.isRotten = parent.isRotten;
    sequence.layers.forEach((generations, layer) => {
      const from = parent.generation(layer);
      const length = Math.min(tokenCount, from.length);
      const durableLength = Math.min(tokenCount, from.durableLength);
      generations.push({ operation: 0, tokens: from.tokens.slice(0, length), length, durableLength });
    });
    sequence.namedAtNs = nowNs;
    this.sequences.push(sequence);
    return sequence;
  }

  /** The drive has given a sequence its id. */
  born(sequence: ModelSequence, id: bigint, isChosen: boolean, nowNs: number): void {
    assert.ok(!isChosen || !this.#chosenIds.has(id), `id ${id} was given out before`);
    if (isChosen) this.#chosenIds.add(id);
    const other = this.live.find((candidate) => candidate.id === id && candidate !== sequence);
    assert.ok(other === undefined || other.isUnsettled || other.leaseSeconds > 0, `id ${id} is in use`);
    sequence.id = id;
    sequence.operations[0]!.completed = this.#ticks.next();
    sequence.touchedAtNs = nowNs;
  }

  /** Of a moment at which nothing is in flight: ids of the sequences that are there. */
  checkLeases(ids: readonly bigint[], nowNs: number): void {
    for (const sequence of this.live) {
      if (sequence.isUnsettled || !sequence.mustExpire(nowNs)) continue;
      assert.ok(
        !ids.includes(sequence.id),
        `${sequence.describe()}: its lease of ${sequence.leaseSeconds} s has ended`,
      );
    }
  }

  forget(sequence: ModelSequence): void {
    this.sequences = this.sequences.filter((other) => other !== sequence);
  }

  /** Cells have rotted while the drive was off, after a shutdown. */
  rot(id: bigint): void {
    for (const sequence of this.sequences) if (sequence.id === id || !sequence.isBorn) sequence.isRotten = true;
  }

  // --- Format

  /** A Format NVM on its way: it ends every sequence. Nothing else is in flight. */
  format(): FormattedSequences {
    const submitted = this.#ticks.next();
    const ended = this.sequences.filter((sequence) => !sequence.isEnded);
    for (const sequence of ended) sequence.begin('format', submitted);
    return { all: [...this.sequences], ended };
  }

  /** It has succeeded, and so it is durable. */
  formatted({ all }: FormattedSequences): void {
    this.sequences = this.sequences.filter((sequence) => !all.includes(sequence));
  }

  // --- Flush

  scope(): FlushScope {
    return this.sequences.map((sequence) => ({
      sequence,
      operationCount: sequence.operations.filter(({ completed }) => completed < PENDING).length,
      layers: sequence.layers.map((generations) => {
        const generation = generations.findLast(({ operation }) => sequence.operations[operation]!.completed < PENDING);
        const last = generation ?? generations[0]!;
        return { generation: last, length: last.length };
      }),
    }));
  }

  flushed(scope: FlushScope): void {
    for (const { sequence, operationCount, layers } of scope) {
      sequence.durableCount = Math.max(sequence.durableCount, operationCount);
      if (operationCount === 0) continue;
      for (const { generation, length } of layers) {
        generation.durableLength = Math.max(generation.durableLength, length);
      }
      // Nothing of it may ever come back.
      if (sequence.isEnded && sequence.durableCount === sequence.operations.length) this.forget(sequence);
    }
  }

  /** An append with FUA has succeeded. */
  layerDurable(sequence: ModelSequence, generation: Generation, length: number): void {
    generation.durableLength = Math.max(generation.durableLength, length);
    sequence.durableCount = Math.max(sequence.durableCount, generation.operation + 1);
  }

  /** Operations on a sequence have completed without a write cache. */
  operationsDurable(sequence: ModelSequence): void {
    const completed = sequence.operations.filter((operation) => operation.completed < PENDING).length;
    sequence.durableCount = Math.max(sequence.durableCount, completed);
  }

  // --- After a start

  /** The process was killed, and nothing else, when this was what had completed. */
  killed(scope: FlushScope): void {
    this.flushed(
      scope.map(({ sequence, operationCount, layers }) => {
        const { groupTokens } = sequence.shape;
        const count = countBeforeAbandons(sequence, operationCount);
        const whole = layers.flatMap(({ generation, length }, layer) => {
          const before = sequence.layers[layer]!.findLast(({ operation }) => operation < count) ?? generation;
          const wholeLength = length - (length % groupTokens);
          return [generation, before].map((either) => ({ generation: either, length: wholeLength }));
        });
        return { sequence, operationCount: count, layers: whole };
      }),
    );
  }

  /** What was found is what there is from now on. `others`: fates of other records in the same log. */
  adopt(found: readonly FoundSequence[], nowNs: number, others: readonly RecordFate[]): void {
    const adopted: ModelSequence[] = [];
    const fates = [...others];
    for (const { uid, id } of found) {
      assert.ok(
        this.sequences.some((sequence) => sequence.uid === uid),
        `sequence ${id} s${uid} is there and must not be: reclaimed and durable, or never created`,
      );
    }
    for (const sequence of this.sequences) {
      const observed = found.find(({ uid }) => uid === sequence.uid);
      const counts = possibleCounts(sequence, observed, nowNs);
      const what = observed ? `is found with ${observed.lengths.join(', ')} tokens` : 'is not found';
      assert.ok(counts.length > 0, `${sequence.describe()} ${what}`);
      sequence.operations.forEach((operation, index) => {
        if (operation.kind === 'abandon' || operation.kind === 'expire') return;
        // Whether it has ended before, by its lease, nobody knows.
        if (operation.kind === 'format' && observed === undefined && sequence.mayExpire(nowNs)) return;
        const isThere = Math.min(...counts) > index;
        const what = `${operation.kind} of ${sequence.label}`;
        if (isThere || Math.max(...counts) <= index) fates.push({ ...operation, what, isThere });
      });
      if (observed) adopted.push(adoptedOf(sequence, observed, nowNs));
    }
    checkOrder(fates);
    checkFormats(fates);
    this.sequences = adopted;
  }
}

/** A disk that refused an append may have refused the record that it was given up, too: then its first tokens may be there. */
function countBeforeAbandons({ operations, durableCount }: ModelSequence, operationCount: number): number {
  let count = operationCount;
  while (count > durableCount && operations[count - 1]!.kind === 'abandon') count--;
  return count;
}

/** Fails if a record is there that was made after another that is lost. */
function checkOrder(fates: readonly RecordFate[]): void {
  const lost = fates.filter(({ isThere }) => !isThere);
  const lostAt = lost.reduce((earliest, { completed }) => Math.min(earliest, completed), PENDING);
  const late = fates.find(({ isThere, submitted }) => isThere && submitted > lostAt);
  if (late === undefined) return;
  const first = lost.find(({ completed }) => completed === lostAt);
  assert.fail(
    `the ${late.what} of ${late.submitted} is there, the ${first?.what} that was complete at ${lostAt} is not`,
  );
}

/** Fails if a format is there for some sequences and not for others. */
function checkFormats(fates: readonly RecordFate[]): void {
  const formats = fates.filter(({ what }) => what.startsWith('format '));
  for (const { submitted, isThere, what } of formats) {
    const other = formats.find((fate) => fate.submitted === submitted && fate.isThere !== isThere);
    assert.ok(
      other === undefined,
      `the ${what} at ${submitted} is ${isThere ? '' : 'not '}there, the ${other?.what} is`,
    );
  }
}

/** How many of its operations may be there. */
function possibleCounts(sequence: ModelSequence, found: FoundSequence | undefined, nowNs: number): number[] {
  const { operations, durableCount } = sequence;
  const counts: number[] = [];
  for (let count = durableCount; count <= operations.length; count++) {
    const isGone = count === 0 || isEnd(operations[count - 1]!);
    const isPossible = found === undefined ? isGone : !isGone && isPossibleAt(sequence, found, count);
    if (isPossible) counts.push(count);
  }
  if (found === undefined && !sequence.isEnded && sequence.mayExpire(nowNs)) counts.push(operations.length);
  return counts;
}

function isPossibleAt(sequence: ModelSequence, found: FoundSequence, count: number): boolean {
  return sequence.layers.every((generations, layer) => {
    const generation = generations.findLast(({ operation }) => operation < count)!;
    const length = found.lengths[layer]!;
    if (length < generation.durableLength || length > generation.tokens.length) return false;
    return found.holds(layer, generation.tokens.slice(0, length));
  });
}

function adoptedOf(sequence: ModelSequence, found: FoundSequence, nowNs: number): ModelSequence {
  const { uid, shape, leaseSeconds } = sequence;
  const adopted = new ModelSequence({ uid, id: found.id, shape, leaseSeconds });
  adopted.begin('create', -1).completed = -1;
  adopted.durableCount = 1;
  adopted.layers.forEach((generations, layer) => {
    const length = found.lengths[layer]!;
    const candidates = sequence.layers[layer]!.map((generation) => generation.tokens.slice(0, length)).filter(
      (candidate) => candidate.length === length && found.holds(layer, candidate),
    );
    const tokens = candidates.at(-1)!;
    const isSame = candidates.every((candidate) => candidate.every((token, i) => token === tokens[i]));
    if (!found.isReadable(layer) && !isSame) adopted.isUnknown = true;
    generations.push({ operation: 0, tokens, length, durableLength: length });
  });
  adopted.namedAtNs = nowNs;
  adopted.touchedAtNs = nowNs;
  adopted.isRotten = sequence.isRotten;
  adopted.isUnknown ||= sequence.isUnknown;
  adopted.isUnsettled = adopted.isUnknown;
  return adopted;
}
