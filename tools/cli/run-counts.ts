/** What a decoding run took: from its own ATTN results, its own connection and its own sequence. */
import type { DriveClient } from '../../client/index.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import type { DriveDecoding } from '../model/drive-decoding.ts';

export interface RunCounts {
  /** Pages that the sequence holds now and did not hold before. */
  readonly pagesProgrammed: number;
  /** Pages that the run's ATTN commands walked. */
  readonly pagesRead: number;
  /** Tokens attended to, per layer, by where their keys and values lay. */
  readonly flashTokens: number;
  readonly bufferedTokens: number;
  /** Over the socket, both ways, PDU headers included. */
  readonly socketBytes: number;
  /** Through memory regions, both ways. */
  readonly regionBytes: number;
  /** Keys and values that attention read: what reading the cache back would have moved. */
  readonly readBackBytes: number;
}

/** Counts from here to the call of what it returns; that is to come after a flush, when all full groups are in pages. */
export async function countRun(client: DriveClient, decoding: DriveDecoding): Promise<() => Promise<RunCounts>> {
  const { sequence, attention } = decoding;
  const { pageCount } = await sequence.info();
  const before = client.linkCounts;
  return async () => {
    const { socketBytes, regionBytes } = client.linkCounts;
    const { flashTokens, bufferedTokens } = attention;
    const { kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV, groupTokens } = sequence.shape;
    const rowBytes = rowSizeBytes(elementTypeK, headDimK) + rowSizeBytes(elementTypeV, headDimV);
    return {
      pagesProgrammed: (await sequence.info()).pageCount - pageCount,
      // Whole groups only lie in flash, a page of K and a page of V for each head.
      pagesRead: (flashTokens / groupTokens) * kvHeadCount * 2,
      flashTokens,
      bufferedTokens,
      socketBytes: socketBytes - before.socketBytes,
      regionBytes: regionBytes - before.regionBytes,
      readBackBytes: (flashTokens + bufferedTokens) * kvHeadCount * rowBytes,
    };
  };
}
