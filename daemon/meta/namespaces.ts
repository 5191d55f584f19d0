/**
 * First element of every key of the metadata store. Numbers are media format: a retired one is struck from this list
 * with a comment and never given again.
 */
export const metaNamespaces = {
  /** FTL: ['state'], one record; ['uuid'], whose metadata it is. */
  drive: 1,
  /** FTL: [segment] -> 4096 little-endian u32 slot addresses of the block namespace. */
  blockMap: 2,
  /** FTL: [segment] -> 4096 little-endian u32 physical pages of the KV namespace. */
  kvMap: 3,
  // 4 was set aside for superblocks; nothing was ever written under it.
  /** FTL: ['list'] -> [LBA, operation number] of blocks whose newest bytes are only in the staging log. */
  stagedBlocks: 5,
  /** FTL: the table of bad erase blocks: ['table'], ['bad', ...], ['replaced', ...], ['retired', ...]. */
  flashBlocks: 6,
  /** KV: one record for the room. */
  kvState: 16,
  /** KV: [sequence id as hexadecimal text] -> sequence record. */
  kvSequences: 17,
  /** KV: [sequence id as hexadecimal text, layer, ...] -> page lists. */
  kvLayers: 18,
  /** KV: free for that room. */
  kvOther: 19,
} as const;

export type MetaNamespace = (typeof metaNamespaces)[keyof typeof metaNamespaces];
