/** The drive's counters (log page C0h), and what a piece of work added to them. */
import type { DriveClient, SequenceShape } from '../../client/index.ts';
import { elementSizeBytes } from '../../spec/element-type.ts';

export type DriveStatistics = Awaited<ReturnType<DriveClient['controller']['driveStatistics']>>;

export const readStatistics = (client: DriveClient): Promise<DriveStatistics> => client.controller.driveStatistics();

export interface DecodeCounts {
  readonly pagesProgrammed: number;
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

/** What lies between two readings, for work on one sequence; on a drive that others use too, theirs is in it. */
export function statisticsSince(before: DriveStatistics, after: DriveStatistics, shape: SequenceShape): DecodeCounts {
  const added = (...names: (keyof DriveStatistics)[]): number =>
    names.reduce((sum, name) => sum + Number(after[name]) - Number(before[name]), 0);
  const flashTokens = added('attendFlashTokens');
  const bufferedTokens = added('attendBufferedTokens');
  const { kvHeadCount, headDimK, headDimV, elementTypeK, elementTypeV } = shape;
  const rowBytes = headDimK * elementSizeBytes(elementTypeK) + headDimV * elementSizeBytes(elementTypeV);
  return {
    pagesProgrammed: added('hostPagesProgrammed', 'gcPagesProgrammed'),
    pagesRead: added('hostPagesRead', 'attendPagesRead', 'gcPagesRead'),
    flashTokens,
    bufferedTokens,
    socketBytes: added('linkReceivedBytes', 'linkSentBytes'),
    regionBytes: added('regionReadBytes', 'regionWrittenBytes'),
    readBackBytes: (flashTokens + bufferedTokens) * kvHeadCount * rowBytes,
  };
}
