/**
 * One of the two pages at the beginning of an LMDB data file, of which the one with the higher transaction counts:
 * MDB_page and MDB_meta of the version of LMDB that lmdb-js 3 is built with. Only what the check before opening needs.
 */
import { bytes, defineStruct, u32, uint64 } from '../../spec/struct.ts';

export const LMDB_MAGIC = 0xbeefc0de;

export const lmdbMeta = defineStruct('LMDB meta page', 160, {
  pageHeader: bytes(0, 24, 'mp_pgno, mp_txnid, flags'),
  magic: u32(24, 'mm_magic'),
  version: u32(28, 'mm_version'),
  address: bytes(32, 8, 'mm_address'),
  mapSizeBytes: uint64(40, 'mm_mapsize'),
  pageSizeBytes: u32(48, 'mm_psize, in md_pad of the first database'),
  databases: bytes(52, 92, 'rest of mm_dbs'),
  lastPage: uint64(144, 'mm_last_pg'),
  transaction: uint64(152, 'mm_txnid'),
});
