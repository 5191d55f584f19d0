/**
 * What the block namespace may hold. Each 4 KiB block has a history of writes; a write takes effect as a whole at some
 * moment between its submission and its completion, so one is older than another only if it was complete before the other
 * was submitted.
 *
 * - A read returns a write that no other, complete before the read was submitted, is newer than.
 * - After a crash a block holds a write that no durable write is newer than: acknowledged writes that are not durable are
 *   there or not, each block by itself, and never in part.
 * - Durable is what completed before a Flush was submitted that succeeded, what was written with FUA or without a write
 *   cache, what a Read with FUA returned, and whatever was found after a start. A killed process loses no deallocation.
 * - A deallocated range is deallocated as a whole or not at all, and before or after all others: kv-model.ts.
 */
import assert from 'node:assert/strict';

/** Moments, in the order in which the host saw them. */
export class Ticks {
  now = 0;

  next(): number {
    return ++this.now;
  }
}

/** What a start has shown of operations that leave a record in one log. */
export interface RecordFate {
  readonly what: string;
  readonly submitted: number;
  readonly completed: number;
  readonly isThere: boolean;
}

/** Of a deallocated block, and of one that was never written. Reads as zeros. */
export const ZEROS = 0;

export interface BlockWrite {
  readonly version: number;
  readonly submitted: number;
  /** Infinity: on its way, or its connection was lost. */
  completed: number;
  /** It took effect. A command that failed may have done so or not. */
  isCertain: boolean;
  isDurable: boolean;
}

interface Deallocation {
  readonly lba: number;
  readonly writes: readonly BlockWrite[];
}

const base = (version: number): BlockWrite => ({
  version,
  submitted: -1,
  completed: -1,
  isCertain: true,
  isDurable: true,
});

/** `a` is newer than `b`, whatever the drive did. */
const isNewer = (a: BlockWrite, b: BlockWrite): boolean => a.isCertain && b.completed < a.submitted;

export class BlockModel {
  readonly lbaCount: number;
  readonly #ticks: Ticks;
  #writes: BlockWrite[][];
  /** LBAs of which something is not durable. */
  readonly #dirty = new Set<number>();
  #deallocations: Deallocation[] = [];
  /** [LBA] -> writes that its rotten cells may hold: it reads as one of them or not at all, until it is written over. */
  readonly #rotten = new Map<number, readonly BlockWrite[]>();
  #version: number;

  constructor(lbaCount: number, ticks: Ticks) {
    this.#version = lbaCount;
    this.lbaCount = lbaCount;
    this.#ticks = ticks;
    this.#writes = Array.from({ length: lbaCount }, () => [base(ZEROS)]);
  }

  /** No two writes look alike, and no version is an LBA. */
  get lastVersion(): number {
    return this.#version;
  }

  nextVersion(): number {
    return ++this.#version;
  }

  /** A command that will write these versions. */
  submit(lba: number, versions: readonly number[]): BlockWrite[] {
    const submitted = this.#ticks.next();
    return versions.map((version, i) => {
      const write = { version, submitted, completed: Number.POSITIVE_INFINITY, isCertain: false, isDurable: false };
      this.#writes[lba + i]!.push(write);
      this.#dirty.add(lba + i);
      return write;
    });
  }

  /** A command that will deallocate these LBAs. */
  submitZeros(lba: number, lbaCount: number): BlockWrite[] {
    const writes = this.submit(lba, new Array<number>(lbaCount).fill(ZEROS));
    this.#deallocations.push({ lba, writes });
    return writes;
  }

  /** Cells have rotted while the drive was off, after a shutdown. */
  rot(lba: number): void {
    this.#rotten.set(lba, this.#writes[lba]!);
  }

  /** What is there may be what can't be read. */
  isRotten(lba: number): boolean {
    return this.#rotten.get(lba)?.some((write) => this.#writes[lba]!.includes(write)) ?? false;
  }

  succeed(lba: number, writes: readonly BlockWrite[], isDurable: boolean): void {
    const completed = this.#ticks.next();
    writes.forEach((write, i) => {
      write.completed = completed;
      write.isCertain = true;
      if (isDurable) this.#makeDurable(lba + i, write);
    });
  }

  /** It has ended; each of its blocks may be written or not. */
  fail(writes: readonly BlockWrite[]): void {
    const completed = this.#ticks.next();
    for (const write of writes) write.completed = completed;
  }

  #makeDurable(lba: number, durable: BlockWrite): void {
    durable.isDurable = true;
    this.#writes[lba] = this.#writes[lba]!.filter((write) => write === durable || !isNewer(durable, write));
  }

  /** A Flush that was submitted at `submitted` has succeeded. */
  flushed(submitted: number): void {
    for (const lba of this.#dirty) {
      for (const write of this.#writes[lba]!) {
        if (write.isCertain && write.completed < submitted) this.#makeDurable(lba, write);
      }
      if (this.#writes[lba]!.every(({ isDurable }) => isDurable)) this.#dirty.delete(lba);
    }
    this.#deallocations = this.#deallocations.filter(({ writes }) => !writes.every(({ isDurable }) => isDurable));
  }

  /** The write that an LBA holds for sure; undefined if there are several that it may hold. */
  certain(lba: number): BlockWrite | undefined {
    const writes = this.#writes[lba]!;
    const newest = writes.at(-1)!;
    const isKnown = newest.isCertain && writes.every((write) => write === newest || isNewer(newest, write));
    return isKnown ? newest : undefined;
  }

  /** A Read is on its way. Call what is returned with the versions that it returned. */
  read(lba: number, lbaCount: number, isFua: boolean): (versions: readonly number[]) => void {
    const submitted = this.#ticks.next();
    const before = this.#writes.slice(lba, lba + lbaCount);
    return (versions) =>
      versions.forEach((version, i) => this.#checkRead(lba + i, version, { before: before[i]!, submitted, isFua }));
  }

  #checkRead(
    lba: number,
    version: number,
    { before, submitted, isFua }: { before: readonly BlockWrite[]; submitted: number; isFua: boolean },
  ): void {
    const writes = [...new Set([...before, ...this.#writes[lba]!])];
    const isOld = (write: BlockWrite): boolean =>
      writes.some((other) => other.completed < submitted && isNewer(other, write));
    const found = writes.filter((write) => write.version === version && !isOld(write));
    assert.ok(found.length > 0, `a Read of ${submitted} finds LBA ${lba} in version ${version}; ${describe(writes)}`);
    const [seen] = found;
    if (!isFua || found.length > 1 || seen === undefined || version === ZEROS) return;
    seen.isCertain = true;
    seen.completed = Math.min(seen.completed, this.#ticks.now);
    this.#makeDurable(lba, seen);
  }

  /** The process was killed, and nothing else: records that it wrote are there. */
  killed(): void {
    for (const { lba, writes } of this.#deallocations) {
      writes.forEach((write, i) => {
        if (write.isCertain) this.#makeDurable(lba + i, write);
      });
    }
  }

  /**
   * What is found after a start, of every LBA: it is what there is from now on. Undefined: it can't be read. Returns what
   * became of deallocations.
   */
  adopt(versions: readonly (number | undefined)[]): RecordFate[] {
    const possible = this.#writes.map((writes, lba) => {
      const version = versions[lba];
      const isLost = (write: BlockWrite): boolean => writes.some((other) => other.isDurable && isNewer(other, write));
      const isFound = (write: BlockWrite): boolean =>
        version === undefined ? this.#rotten.get(lba)!.includes(write) : write.version === version;
      const found = writes.filter((write) => isFound(write) && !isLost(write));
      assert.ok(found.length > 0, `LBA ${lba} holds version ${version} after a start; ${describe(writes)}`);
      return found;
    });
    const fates = this.#deallocations.flatMap((deallocation) => fateOf(deallocation, possible));
    this.#writes = possible.map((found, lba) => {
      if (versions[lba] === undefined) {
        this.#rotten.set(lba, found);
        return [...found];
      }
      this.#rotten.delete(lba);
      return [base(versions[lba])];
    });
    this.#dirty.clear();
    this.#deallocations = [];
    return fates;
  }
}

/** Whether a deallocation is there, if what was found tells. `possible`: [LBA] -> writes that it may hold. */
function fateOf({ lba, writes }: Deallocation, possible: readonly (readonly BlockWrite[])[]): RecordFate[] {
  const isThere = writes.some((write, i) => possible[lba + i]!.every((found) => found === write));
  const isLost = writes.some((write, i) => possible[lba + i]!.every((found) => isNewer(write, found)));
  const [{ submitted, completed }] = writes as [BlockWrite];
  const what = `deallocation of LBA ${lba}+${writes.length}`;
  assert.ok(!isThere || !isLost, `the ${what} of ${submitted} to ${completed} is there in part`);
  return isThere || isLost ? [{ what, submitted, completed, isThere }] : [];
}

const describe = (writes: readonly BlockWrite[]): string =>
  `its writes are ${writes
    .map(
      ({ version, submitted, completed, isCertain, isDurable }) =>
        `${version} (${submitted} to ${completed}${isCertain ? '' : ', perhaps'}${isDurable ? ', durable' : ''})`,
    )
    .join(', ')}`;

const LBA_BYTES = 4096;

/** A block's content: its LBA and version, over and over. */
export function fillBlock(target: Uint8Array, lba: number, version: number): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, LBA_BYTES / 4);
  if (version === ZEROS) {
    words.fill(0);
    return;
  }
  for (let i = 0; i < words.length; i += 2) {
    words[i] = lba;
    words[i + 1] = version;
  }
}

/** The version that these bytes are some of, whatever block's; undefined if they are of none. */
export function holdsVersion(bytes: Uint8Array, lbaCount: number): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const [lba, version] = [view.getUint32(0, true), view.getUint32(4, true)];
  if (lba >= lbaCount || version < lbaCount) return undefined;
  for (let at = 8; at < bytes.length; at += 8) {
    if (view.getUint32(at, true) !== lba || view.getUint32(at + 4, true) !== version) return undefined;
  }
  return version;
}

/** The version that a block's bytes are; fails if they are no whole version of this LBA. */
export function versionOf(bytes: Uint8Array, lba: number): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, LBA_BYTES / 4);
  const version = words[1]!;
  const first = version === ZEROS ? 0 : lba;
  for (let i = 0; i < words.length; i += 2) {
    if (words[i] === first && words[i + 1] === version) continue;
    assert.fail(`LBA ${lba} is torn: version ${version}, then ${words[i]} ${words[i + 1]} at byte ${4 * i}`);
  }
  return version;
}
