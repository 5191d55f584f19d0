// Where this module keeps its own data: in the arena's reserved bytes (ARENA_RESERVED_BYTES, 256 KiB), which all threads
// share. The CRC table is the same for all; a call's scratch is a slot that it claims for as long as it runs.

/** One lock word a slot. */
const SLOT_LOCKS: usize = 64;
export const CRC_TABLES: usize = 1024;
const SLOTS: usize = 16384;
const SLOT_BYTES: usize = 8192;
const SLOT_COUNT: usize = 30;

// Within a slot. Queries: up to four rows, QUERY_STRIDE bytes apart, zero-padded.
export const QUERY_STRIDE: usize = 1024;
export const QUERIES: usize = 0;
/** f32 [64][4] (four rows) or [64] (one row): logits, then weights. */
export const LOGITS: usize = 4096;
/** Weighted sum of a row that only pads a tile. */
export const DISCARDED: usize = 5120;
/** u32 [64 + 4] each: addresses of a block's K and V rows, and positions. */
export const K_ROWS: usize = 6144;
export const V_ROWS: usize = 6416;
export const POSITIONS: usize = 6688;
/** f32 [4] each. */
export const FACTORS: usize = 6960;
export const LANES: usize = 6976;

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
