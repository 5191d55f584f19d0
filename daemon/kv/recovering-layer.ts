import { assert } from '../base/assert.ts';
import type { Lpn } from '../ftl/contract.ts';
import { BlockTable } from './block-table.ts';
import type { TailRecord } from './staged-records.ts';

/** Rows of the staging log: `rows` holds `recordTokens` tokens from `firstToken` on, of which `tokenCount` count. */
export interface StagedRows {
  readonly firstToken: number;
  readonly tokenCount: number;
  readonly recordTokens: number;
  readonly rows: Uint8Array;
}

/** The first rows of a group that a truncate cut in the middle; the group's pages still hold them. */
export interface CutGroup {
  readonly group: number;
  readonly rowCount: number;
  readonly pages: readonly Lpn[];
}

/** What a layer turned out to hold. */
export interface RecoveredLayer {
  readonly length: number;
  /** To be read back into the tail, if any. */
  readonly cut: CutGroup | undefined;
  readonly staged: readonly StagedRows[];
  readonly droppedPageCount: number;
  readonly droppedTailCount: number;
  readonly lostTokenCount: number;
}

/**
 * One layer while events are applied to it. The table holds the groups that are whole in every stream, without a gap;
 * pages of other groups wait until their group is whole. Tokens of one generation are only ever added, so whatever
 * carries the present generation agrees with everything else that does.
 */
export class RecoveringLayer {
  readonly table: BlockTable;
  readonly groupTokens: number;
  generation: number;
  #waiting = new Map<number, Map<number, Lpn>>();
  #staged: StagedRows[] = [];
  #cut: CutGroup | undefined;
  #expectedLength = 0;
  #droppedPageCount = 0;

  constructor(streamCount: number, groupTokens: number, generation: number) {
    this.table = new BlockTable(streamCount);
    this.groupTokens = groupTokens;
    this.generation = generation;
  }

  /** After the table's segments are loaded: the length that the metadata record names. */
  loaded(length: number): void {
    this.table.loaded(Math.floor(length / this.groupTokens));
    this.#expectedLength = length;
  }

  /** A page of the present generation. */
  addPage(group: number, stream: number, page: Lpn): void {
    if (group < this.table.groupCount) {
      if (this.table.page(group, stream) !== page) this.#droppedPageCount++;
      return;
    }
    let pages = this.#waiting.get(group);
    if (pages === undefined) this.#waiting.set(group, (pages = new Map()));
    pages.set(stream, page);
    if (group === this.table.groupCount) this.#takeWholeGroups();
  }

  #takeWholeGroups(): void {
    const { table } = this;
    for (;;) {
      const group = table.groupCount;
      const pages = this.#waiting.get(group);
      if (pages?.size !== table.streamCount) return;
      table.reserveGroups(group + 1);
      for (const [stream, page] of pages) table.write(group, stream, page);
      table.extendTo(group + 1);
      this.#waiting.delete(group);
      if (this.#cut?.group === group) this.#cut = undefined;
    }
  }

  /** Rows of the present generation. */
  addTail(record: TailRecord): void {
    const { firstToken, tokenCount, rows } = record;
    this.#staged.push({ firstToken, tokenCount, recordTokens: tokenCount, rows });
  }

  truncate(length: number, generation: number): void {
    const group = Math.floor(length / this.groupTokens);
    const rowCount = length % this.groupTokens;
    this.#cut = this.#cutAt(group, rowCount);
    if (group < this.table.groupCount) this.table.cutTo(group);
    for (const waiting of this.#waiting.keys()) {
      if (waiting >= group) this.#waiting.delete(waiting);
    }
    this.#staged = clipRows(this.#staged, length);
    this.#expectedLength = Math.min(this.#expectedLength, length);
    this.generation = generation;
  }

  /** The cut group that remains after cutting at `rowCount` rows of `group`. */
  #cutAt(group: number, rowCount: number): CutGroup | undefined {
    const { table } = this;
    if (group < table.groupCount) {
      if (rowCount === 0) return undefined;
      const pages = Array.from({ length: table.streamCount }, (_, stream) => table.page(group, stream));
      return { group, rowCount, pages };
    }
    const cut = this.#cut;
    if (cut === undefined || cut.group < group) return cut;
    if (cut.group > group || rowCount === 0) return undefined;
    return { ...cut, rowCount: Math.min(cut.rowCount, rowCount) };
  }

  /** Gives a child, which holds nothing yet, what is known of the first `tokenCount` tokens. */
  shareWith(child: RecoveringLayer, tokenCount: number): void {
    const group = Math.floor(tokenCount / this.groupTokens);
    child.table.copyFrom(this.table, Math.min(group, this.table.groupCount));
    for (const [waiting, pages] of this.#waiting) {
      if (waiting < group) child.#waiting.set(waiting, new Map(pages));
    }
    child.#staged = clipRows(this.#staged, tokenCount);
    child.#cut = this.#cutAt(group, tokenCount % this.groupTokens);
  }

  /** Pages whose holder this layer is. */
  forEachPage(callback: (page: Lpn) => void): void {
    this.table.forEachPage(0, this.table.groupCount, callback);
    this.#usableCut?.pages.forEach(callback);
  }

  get #usableCut(): CutGroup | undefined {
    return this.#cut?.group === this.table.groupCount ? this.#cut : undefined;
  }

  /** The longest prefix: whole groups, then rows of the next group from cut pages and staged records that connect. */
  finish(): RecoveredLayer {
    const start = this.table.groupCount * this.groupTokens;
    const end = start + this.groupTokens - 1;
    const cut = this.#usableCut;
    let length = start + (cut?.rowCount ?? 0);
    const staged: StagedRows[] = [];
    const ascending = this.#staged.toSorted((a, b) => a.firstToken - b.firstToken);
    for (const rows of ascending) {
      const rowsEnd = rows.firstToken + rows.tokenCount;
      if (rows.firstToken > length || rowsEnd <= start) continue;
      staged.push(rows);
      length = Math.max(length, Math.min(rowsEnd, end));
    }
    let waitingPageCount = 0;
    for (const pages of this.#waiting.values()) waitingPageCount += pages.size;
    return {
      length,
      cut,
      staged,
      droppedPageCount: this.#droppedPageCount + waitingPageCount,
      droppedTailCount: ascending.filter((rows) => rows.firstToken > length).length,
      lostTokenCount: Math.max(0, this.#expectedLength - length),
    };
  }
}

function clipRows(staged: readonly StagedRows[], length: number): StagedRows[] {
  return staged
    .filter((rows) => rows.firstToken < length)
    .map((rows) => ({ ...rows, tokenCount: Math.min(rows.tokenCount, length - rows.firstToken) }));
}

/** Where one head's rows of one part begin in a staged record, and at which of them. */
export function stagedRowOffset(
  staged: StagedRows,
  rowBytes: readonly [number, number],
  head: number,
  part: 0 | 1,
  token: number,
): number {
  const index = token - staged.firstToken;
  assert(index >= 0 && index < staged.recordTokens, `token ${token} is in the record`);
  const headBytes = staged.recordTokens * (rowBytes[0] + rowBytes[1]);
  return head * headBytes + (part === 0 ? 0 : staged.recordTokens * rowBytes[0]) + index * rowBytes[part];
}
