/**
 * Layout of an LMDB data file, as far as the check before opening needs it: MDB_page, MDB_meta, MDB_node, MDB_ovpage of
 * liblmdb's mdb.c in the version that lmdb-js 3 is built with (64-bit, little-endian).
 */
import { defineStruct, reserved, u16, u32, uint64 } from '../../spec/struct.ts';

export const LMDB_MAGIC = 0xbeefc0de;
export const LMDB_DATA_VERSION = 2;
/** MDB_INTEGERKEY: what the list of free pages is sorted by. */
export const LMDB_INTEGER_KEYS = 0x08;
export const lmdbPageFlags = { branch: 0x01, leaf: 0x02, overflow: 0x04, meta: 0x08 } as const;
/** A node whose data lies on overflow pages. */
export const LMDB_BIG_DATA = 0x01;
/** Longest key that lmdb-js takes. */
export const LMDB_KEY_BYTES_MAX = 1978;

/** A page begins with it; the offsets of its nodes follow, counted from the end of the header. */
export const lmdbPageHeader = defineStruct('LMDB page header', 24, {
  page: uint64(0, 'mp_pgno'),
  transaction: uint64(8, 'mp_txnid'),
  padding: u16(16, 'mp_pad'),
  flags: u16(18, 'mp_flags'),
  lower: u16(20, 'mp_lower: twice the number of nodes; overflow pages: low half of mp_pages'),
  upper: u16(22, 'mp_upper: where the nodes begin; overflow pages: high half of mp_pages'),
});

const tree = (offset: number, name: string) => ({
  flags: u16(offset + 4, `${name}: md_flags`),
  depth: u16(offset + 6, `${name}: md_depth`),
  branchPages: uint64(offset + 8, `${name}: md_branch_pages`),
  leafPages: uint64(offset + 16, `${name}: md_leaf_pages`),
  overflowPages: uint64(offset + 24, `${name}: md_overflow_pages`),
  entries: uint64(offset + 32, `${name}: md_entries`),
  root: uint64(offset + 40, `${name}: md_root; all ones: empty`),
});
const free = tree(48, 'free pages');
const main = tree(96, 'records');

/** The first two pages of a file. The one with the higher transaction counts. */
export const lmdbMeta = defineStruct('LMDB meta page', 160, {
  page: uint64(0, 'mp_pgno'),
  pageTransaction: uint64(8, 'mp_txnid'),
  pagePadding: u16(16, 'mp_pad'),
  pageFlags: u16(18, 'mp_flags'),
  pageBounds: u32(20, 'mp_pb'),
  magic: u32(24, 'mm_magic'),
  version: u32(28, 'mm_version'),
  address: reserved(32, 8),
  mapSizeBytes: uint64(40, 'mm_mapsize'),
  pageSizeBytes: u32(48, 'mm_psize, in md_pad of the first tree'),
  freeFlags: free.flags,
  freeDepth: free.depth,
  freeBranchPages: free.branchPages,
  freeLeafPages: free.leafPages,
  freeOverflowPages: free.overflowPages,
  freeEntries: free.entries,
  freeRoot: free.root,
  mainPadding: u32(96, 'records: md_pad'),
  mainFlags: main.flags,
  mainDepth: main.depth,
  mainBranchPages: main.branchPages,
  mainLeafPages: main.leafPages,
  mainOverflowPages: main.overflowPages,
  mainEntries: main.entries,
  mainRoot: main.root,
  lastPage: uint64(144, 'mm_last_pg'),
  transaction: uint64(152, 'mm_txnid'),
});

/** A node: this, the key, then the data or an `lmdbOverflow`. In a branch, size and flags are the child's number. */
export const lmdbNode = defineStruct('LMDB node', 8, {
  low: u16(0, 'mn_lo'),
  high: u16(2, 'mn_hi'),
  flags: u16(4, 'mn_flags'),
  keyBytes: u16(6, 'mn_ksize'),
});

export const lmdbOverflow = defineStruct('LMDB overflow reference', 24, {
  page: uint64(0, 'op_pgno'),
  transaction: uint64(8, 'op_txnid'),
  pageCount: uint64(16, 'op_pages'),
});
