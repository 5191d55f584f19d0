import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import type { StructValue } from '../../spec/struct.ts';
import { DriveError } from '../base/errors.ts';
import { fileError } from '../base/file-errors.ts';
import {
  LMDB_BIG_DATA,
  LMDB_DATA_VERSION,
  LMDB_INTEGER_KEYS,
  LMDB_KEY_BYTES_MAX,
  LMDB_MAGIC,
  lmdbMeta,
  lmdbNode,
  lmdbOverflow,
  lmdbPageFlags,
  lmdbPageHeader,
} from './lmdb-layout.ts';

type Meta = StructValue<(typeof lmdbMeta)['fields']>;
type PageHeader = StructValue<(typeof lmdbPageHeader)['fields']>;

const META_COUNT = 2;
const HEADER_BYTES = lmdbPageHeader.sizeBytes;
const NODE_BYTES = lmdbNode.sizeBytes;
const PAGE_BYTES_MIN = 512;
const PAGE_BYTES_MAX = 65_536;
const DEPTH_MAX = 32;
/** md_root of an empty tree is 2^64 - 1, which a number holds as 2^64. */
const NO_ROOT = 2 ** 64;
const even = (value: number): number => value + (value & 1);

/**
 * Whether LMDB can be trusted with a data file. LMDB has no checksums, maps its file and follows the page numbers that it
 * finds there: one changed bit could end the process by a signal, hide records, or make it write over pages in use. So
 * both trees are walked before it opens the file: every page is where it says it is, of the right kind, used once and
 * not free; keys ascend; counts agree. Values are not looked at.
 *
 * DriveError mediaFormat names the page and what is wrong with it.
 */
export function checkLmdbFile(path: string): void {
  walkLmdbFile(path, {
    damaged: (error) => {
      throw error;
    },
  });
}

export interface LmdbListener {
  /** Each record of the main tree, in key order. */
  readonly record?: (key: Buffer, value: Buffer) => void;
  /** What is wrong. If it returns, the walk goes on where it can. */
  readonly damaged: (error: DriveError) => void;
}

/** Walks both trees of a data file without LMDB. Throws only what `listener` throws. */
export function walkLmdbFile(path: string, listener: LmdbListener): void {
  try {
    openAndWalk(path, listener);
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    listener.damaged(error);
  }
}

function openAndWalk(path: string, listener: LmdbListener): void {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (!isMissing) throw fileError('mediaFormat', error, path);
    throw new DriveError('mediaFormat', `${path} is missing; it is part of the drive`, { cause: error });
  }
  try {
    new LmdbFile(descriptor, path, listener).check();
  } finally {
    closeSync(descriptor);
  }
}

interface Counts {
  branchPages: number;
  leafPages: number;
  overflowPages: number;
  entries: number;
}

/** One of the two trees: what its meta page says of it, and how far the walk has come. */
interface Tree {
  readonly name: string;
  readonly root: number;
  readonly depth: number;
  readonly expected: Counts;
  readonly found: Counts;
  readonly compare: (a: Buffer, b: Buffer) => number;
  readonly isKey: (key: Buffer) => boolean;
  /** Called for each record if the data is of interest. */
  readonly visit?: ((key: Buffer, data: Buffer, page: number) => void) | undefined;
  /** Of the leaf visited last. */
  lastKey: Buffer | undefined;
}

interface Node {
  readonly key: Buffer;
  /** Of a branch: the child. */
  readonly child: number;
  readonly dataBytes: number;
  readonly isBig: boolean;
  /** Offset behind the key. */
  readonly dataAt: number;
}

class LmdbFile {
  readonly #descriptor: number;
  readonly #path: string;
  readonly #listener: LmdbListener;
  readonly #meta: Meta;
  readonly #sizeBytes: number;
  /** A bit per page. */
  readonly #used: Uint8Array;
  readonly #freeRuns: { readonly first: number; readonly count: number }[] = [];

  constructor(descriptor: number, path: string, listener: LmdbListener) {
    this.#descriptor = descriptor;
    this.#listener = listener;
    this.#path = path;
    this.#sizeBytes = fstatSync(descriptor).size;
    this.#meta = this.#chooseMeta();
    this.#used = new Uint8Array(Math.ceil((this.#meta.lastPage + 1) / 8));
  }

  check(): void {
    const meta = this.#meta;
    const main: Tree = {
      name: 'records',
      root: meta.mainRoot,
      depth: meta.mainDepth,
      expected: countsOf(meta, 'main'),
      found: noCounts(),
      compare: (a, b) => a.compare(b),
      isKey: (key) => key.length > 0,
      visit: this.#listener.record,
      lastKey: undefined,
    };
    const free: Tree = {
      name: 'free pages',
      root: meta.freeRoot,
      depth: meta.freeDepth,
      expected: countsOf(meta, 'free'),
      found: noCounts(),
      compare: (a, b) => Number(a.readBigUInt64LE() - b.readBigUInt64LE()),
      isKey: (key) => key.length === 8,
      visit: (_key, data, page) => this.#readFreeRuns(data, page),
      lastKey: undefined,
    };
    for (const tree of [main, free]) this.#attempt(() => this.#walk(tree));
    for (const { first, count } of this.#freeRuns) {
      for (let page = first; page < first + count; page++) {
        if (this.#isUsed(page)) this.#listener.damaged(this.#damaged(`page ${page} is in use and counted as free`));
      }
    }
  }

  /** Damage in one part hides no other part. */
  #attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      this.#listener.damaged(error);
    }
  }

  #damaged(what: string): DriveError {
    return new DriveError('mediaFormat', `${this.#path} is damaged: ${what}`);
  }

  // --- Meta pages

  #chooseMeta(): Meta {
    const first = this.#readMeta(0, 0);
    const second = this.#readMeta(1, first.pageSizeBytes);
    if (second.pageSizeBytes !== first.pageSizeBytes) throw this.#damaged('its meta pages name different page sizes');
    // Transactions write them in turn.
    if (Math.abs(first.transaction - second.transaction) > 1) {
      throw this.#damaged(`its meta pages are of transactions ${first.transaction} and ${second.transaction}`);
    }
    return first.transaction >= second.transaction ? first : second;
  }

  #readMeta(index: number, position: number): Meta {
    const bytes = new Uint8Array(lmdbMeta.sizeBytes);
    const isWhole = readSync(this.#descriptor, bytes, 0, bytes.length, position) === bytes.length;
    const meta = lmdbMeta.decode(bytes);
    if (!isWhole || meta.magic !== LMDB_MAGIC) {
      throw new DriveError('mediaFormat', `${this.#path} is no LMDB file`);
    }
    const { pageSizeBytes, transaction } = meta;
    const isPlausible =
      meta.page === index &&
      meta.pageFlags === lmdbPageFlags.meta &&
      meta.version === LMDB_DATA_VERSION &&
      Number.isInteger(Math.log2(pageSizeBytes)) &&
      pageSizeBytes >= PAGE_BYTES_MIN &&
      pageSizeBytes <= PAGE_BYTES_MAX &&
      meta.freeFlags === LMDB_INTEGER_KEYS &&
      meta.mainFlags === 0 &&
      (transaction === 0 || transaction % META_COUNT === index) &&
      meta.lastPage >= META_COUNT - 1 &&
      Number.isSafeInteger(meta.mapSizeBytes) &&
      meta.mapSizeBytes >= (meta.lastPage + 1) * pageSizeBytes &&
      lmdbMeta.firstNonZeroReserved(bytes) === undefined;
    if (!isPlausible) throw this.#damaged(`meta page ${index}`);
    return meta;
  }

  // --- Trees

  #walk(tree: Tree): void {
    const { name, root, depth, expected, found } = tree;
    if (depth > DEPTH_MAX || (root === NO_ROOT) !== (depth === 0)) throw this.#damaged(`${name}: depth ${depth}`);
    if (root !== NO_ROOT) this.#walkPage(tree, root, 1, undefined);
    for (const key of Object.keys(expected) as (keyof Counts)[]) {
      if (found[key] !== expected[key]) {
        throw this.#damaged(`${name}: ${found[key]} ${key}, and not ${expected[key]} as its meta page says`);
      }
    }
  }

  /** `lowKey`: no key of the page is below it. */
  #walkPage(tree: Tree, page: number, level: number, lowKey: Buffer | undefined): void {
    const bytes = this.#readPage(page, 1);
    const isLeaf = level === tree.depth;
    const header = this.#checkHeader(bytes, page, isLeaf ? lmdbPageFlags.leaf : lmdbPageFlags.branch);
    const { lower, upper } = header;
    const nodeCount = lower / 2;
    if (lower % 2 !== 0 || lower > upper || upper > bytes.length - HEADER_BYTES || nodeCount < (isLeaf ? 1 : 2)) {
      throw this.#damaged(`page ${page}: free space from ${lower} to ${upper}`);
    }
    if (isLeaf) tree.found.leafPages++;
    else tree.found.branchPages++;
    let nodeBytes = 0;
    for (let i = 0; i < nodeCount; i++) {
      const node = this.#readNode(bytes, page, bytes.readUInt16LE(HEADER_BYTES + 2 * i), isLeaf, upper);
      const inlineBytes = isLeaf ? (node.isBig ? lmdbOverflow.sizeBytes : node.dataBytes) : 0;
      nodeBytes += even(NODE_BYTES + node.key.length + inlineBytes);
      if (isLeaf) this.#attempt(() => this.#visitLeaf(tree, bytes, page, node, i === 0 ? lowKey : undefined));
      else {
        if (i > 0) this.#checkAscends(tree, page, node.key);
        this.#attempt(() => this.#walkPage(tree, node.child, level + 1, i === 0 ? lowKey : node.key));
      }
    }
    // Nodes lie without gaps, so none of them share bytes.
    if (nodeBytes !== bytes.length - HEADER_BYTES - upper) throw this.#damaged(`page ${page}: nodes overlap`);
  }

  #readNode(bytes: Buffer, page: number, offset: number, isLeaf: boolean, upper: number): Node {
    const at = HEADER_BYTES + offset;
    if (offset < upper || offset % 2 !== 0 || at + NODE_BYTES > bytes.length) {
      throw this.#damaged(`page ${page}: node at ${offset}`);
    }
    const { low, high, flags, keyBytes } = lmdbNode.decode(bytes, at);
    const dataAt = at + NODE_BYTES + keyBytes;
    const size = low + high * 2 ** 16;
    const isBig = isLeaf && flags === LMDB_BIG_DATA;
    const end = dataAt + (isLeaf ? (isBig ? lmdbOverflow.sizeBytes : size) : 0);
    if (keyBytes > LMDB_KEY_BYTES_MAX || end > bytes.length || (isLeaf && flags !== 0 && !isBig)) {
      throw this.#damaged(`page ${page}: node at ${offset}`);
    }
    const key = bytes.subarray(at + NODE_BYTES, dataAt);
    return { key, child: size + flags * 2 ** 32, dataBytes: size, isBig, dataAt };
  }

  #visitLeaf(tree: Tree, bytes: Buffer, page: number, node: Node, lowKey: Buffer | undefined): void {
    const { key, isBig, dataAt, dataBytes } = node;
    this.#checkAscends(tree, page, key);
    if (lowKey !== undefined && tree.compare(lowKey, key) > 0) {
      throw this.#damaged(`page ${page}: its first key is below its parent's`);
    }
    tree.lastKey = key;
    tree.found.entries++;
    if (!isBig) {
      tree.visit?.(key, bytes.subarray(dataAt, dataAt + dataBytes), page);
      return;
    }
    const reference = lmdbOverflow.decode(bytes, dataAt);
    const { pageCount } = reference;
    // A value that took the place of a longer one in the same transaction may have pages to spare.
    const isEnough = pageCount * this.#meta.pageSizeBytes >= HEADER_BYTES + dataBytes;
    if (!isEnough || pageCount > this.#meta.lastPage) throw this.#damaged(`page ${page}: ${pageCount} overflow pages`);
    const first = this.#readPage(reference.page, pageCount, tree.visit === undefined ? HEADER_BYTES : undefined);
    const { lower, upper } = this.#checkHeader(first, reference.page, lmdbPageFlags.overflow);
    if (lower + upper * 2 ** 16 !== pageCount) throw this.#damaged(`page ${reference.page}: its number of pages`);
    tree.found.overflowPages += pageCount;
    tree.visit?.(key, first.subarray(HEADER_BYTES, HEADER_BYTES + dataBytes), reference.page);
  }

  #checkAscends(tree: Tree, page: number, key: Buffer): void {
    const ascends = tree.isKey(key) && (tree.lastKey === undefined || tree.compare(tree.lastKey, key) < 0);
    if (!ascends) throw this.#damaged(`page ${page}: keys are out of order`);
  }

  // --- Pages

  /** Claims pages and reads them, or `byteCount` bytes of them. */
  #readPage(first: number, count: number, byteCount = count * this.#meta.pageSizeBytes): Buffer {
    const { lastPage, pageSizeBytes } = this.#meta;
    if (first < META_COUNT || first + count - 1 > lastPage)
      throw this.#damaged(`page ${first} is named; it has ${lastPage + 1}`);
    for (let page = first; page < first + count; page++) {
      if (this.#isUsed(page)) throw this.#damaged(`page ${page} is named twice`);
      this.#used[page >>> 3]! |= 1 << (page & 7);
    }
    // Pages that were never written lie behind the end of the file; none of them may be in use.
    if ((first + count) * pageSizeBytes > this.#sizeBytes) {
      throw this.#damaged(`page ${first + count - 1} lies behind its end: it was cut short`);
    }
    const bytes = Buffer.allocUnsafe(byteCount);
    const readCount = readSync(this.#descriptor, bytes, 0, byteCount, first * pageSizeBytes);
    if (readCount !== byteCount) throw this.#damaged(`page ${first} cannot be read`);
    return bytes;
  }

  #isUsed(page: number): boolean {
    return (this.#used[page >>> 3]! & (1 << (page & 7))) !== 0;
  }

  #checkHeader(bytes: Buffer, page: number, flags: number): PageHeader {
    const header = lmdbPageHeader.decode(bytes);
    const isRight = header.page === page && header.flags === flags && header.transaction <= this.#meta.transaction;
    if (!isRight) throw this.#damaged(`page ${page}: its header`);
    return header;
  }

  /** A record of the list of free pages: a count, then entries: a page, or minus a number of pages and their first. */
  #readFreeRuns(data: Buffer, page: number): void {
    const count = data.length >= 8 ? Number(data.readBigInt64LE()) : -1;
    if (count < 0 || (count + 1) * 8 > data.length) throw this.#damaged(`page ${page}: a list of ${count} free pages`);
    for (let i = 1; i <= count; i++) {
      const entry = Number(data.readBigInt64LE(8 * i));
      if (entry === 0) continue;
      const isRun = entry < 0;
      if (isRun) i++;
      const first = isRun ? (i <= count ? Number(data.readBigInt64LE(8 * i)) : 0) : entry;
      const length = isRun ? -entry : 1;
      if (first < META_COUNT || first + length - 1 > this.#meta.lastPage) {
        throw this.#damaged(`page ${page}: free pages ${first}+${length}; it has ${this.#meta.lastPage + 1}`);
      }
      this.#freeRuns.push({ first, count: length });
    }
  }
}

const noCounts = (): Counts => ({ branchPages: 0, leafPages: 0, overflowPages: 0, entries: 0 });

const countsOf = (meta: Meta, tree: 'main' | 'free'): Counts =>
  tree === 'main'
    ? {
        branchPages: meta.mainBranchPages,
        leafPages: meta.mainLeafPages,
        overflowPages: meta.mainOverflowPages,
        entries: meta.mainEntries,
      }
    : {
        branchPages: meta.freeBranchPages,
        leafPages: meta.freeLeafPages,
        overflowPages: meta.freeOverflowPages,
        entries: meta.freeEntries,
      };
