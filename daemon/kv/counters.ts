/** Running totals of the KV room. Gauges follow the state, the others only grow. */
export const newCounters = () => ({
  /** Tokens stored, summed over layers. */
  tokenCount: 0,
  /** Pages that sequences hold; a page that two sequences share counts twice. */
  heldPageCount: 0,
  /** Bytes of held pages that hold no token, counted like them. */
  heldPaddingBytes: 0,
  appendCount: 0,
  appendedTokenCount: 0,
  /** Bytes of rows added, as stored. */
  appendedBytes: 0,
  /** Bytes of the pages programmed that hold no token. */
  programmedPaddingBytes: 0,
  /** Pages programmed that hold padding. */
  paddedPageCount: 0,
  /** Appends that found some or all of their tokens already there. */
  repeatedAppendCount: 0,
  createdCount: 0,
  forkedCount: 0,
  truncateCount: 0,
  reclaimedCount: 0,
  /** Of these, by their lease. */
  expiredCount: 0,
  readBackBytes: 0,
  stagedTailBytes: 0,
});

export type KvCounters = ReturnType<typeof newCounters>;

export interface KvSnapshot extends Readonly<KvCounters> {
  readonly sequenceCount: number;
  /** Tokens, over all layers, that are in the tail buffer and in no page. */
  readonly bufferedTokenCount: number;
  /** Arena bytes that tail slabs take, those that only views still hold included. */
  readonly tailBytes: number;
  readonly recovery: RecoveryReport;
}

/** What the last opening of the drive found. */
export interface RecoveryReport {
  readonly sequenceCount: number;
  readonly eventCount: number;
  /** Pages and staged rows of no known sequence or generation, or out of reach behind a gap. */
  readonly droppedPageCount: number;
  readonly droppedTailCount: number;
  /** Records of sequences that no earlier record made. 0 unless files were damaged. */
  readonly droppedOperationCount: number;
  /** Layer tokens that the last metadata transaction knew and that were not found. 0 unless files were damaged. */
  readonly lostTokenCount: number;
}

export const emptyRecoveryReport: RecoveryReport = {
  sequenceCount: 0,
  eventCount: 0,
  droppedPageCount: 0,
  droppedTailCount: 0,
  droppedOperationCount: 0,
  lostTokenCount: 0,
};
