// Where this module keeps its own data: in the arena's reserved bytes (ARENA_RESERVED_BYTES, 512 KiB), which all threads
// share. The CRC table is the same for all; a call's scratch is a slot that it claims for as long as it runs.

/** One lock word a slot. */
const SLOT_LOCKS: usize = 64;
export const CRC_TABLES: usize = 1024;
const SLOTS: usize = 16384;
const SLOT_BYTES: usize = 20480;
const SLOT_COUNT: usize = 24;

// Within a slot. Queries: up to four rows, QUERY_STRIDE bytes apart, zero-padded.
export const QUERY_STRIDE: usize = 1024;
export const QUERIES: usize = 0;
/** Integers of a row that is being quantised; the row itself lies where queries do at other times. */
export const INTEGERS: usize = 2048;
/** f32 [64][4] (four rows) or [64] (one row): logits, then weights. */
export const LOGITS: usize = 4096;
/** Weighted sum of a row that only pads a tile. */
export const DISCARDED: usize = 5120;
/** Lists of a block's rows. */
export const LISTS: usize = 6144;
/** Within the lists, u32 [64 + 4] each: addresses of K and V rows, and positions. */
export const K_ROWS: usize = 0;
export const V_ROWS: usize = 272;
export const POSITIONS: usize = 544;
/** f32 [4] each. */
export const FACTORS: usize = 6960;
export const LANES: usize = 6976;
/** A block's rows as f32: together with the rows themselves they should stay in the first-level cache. */
export const UNPACKED_BYTES: usize = 6144;
export const K_UNPACKED: usize = 7168;
export const V_UNPACKED: usize = K_UNPACKED + UNPACKED_BYTES;

/** The slot this instance had last: nearly always free again. */
let preferred: usize = 0;

/** Address of a slot that no other call uses. */
export function claimSlot(): usize {
  let slot = preferred;
  while (atomic.cmpxchg<i32>(SLOT_LOCKS + slot * 4, 0, 1) != 0) {
    slot = slot + 1 == SLOT_COUNT ? 0 : slot + 1;
  }
  preferred = slot;
  return SLOTS + slot * SLOT_BYTES;
}

export function releaseSlot(): void {
  atomic.store<i32>(SLOT_LOCKS + preferred * 4, 0);
}
