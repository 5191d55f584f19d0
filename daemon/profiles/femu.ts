import { cellReliability } from './cell-reliability.ts';
import type { DriveProfile } from './profile.ts';
import { engineAsFastAsChannels } from './timing-parts.ts';
import type { CellType } from './timing-profile.ts';

/** FEMU's tables are for pages of this size: what its SimpleSSD and L95B sources have. */
const PAGE_BYTES = 16_384;
const CHANNEL_COUNT = 8;

interface FemuCell {
  readonly cell: CellType;
  readonly readNs: readonly number[];
  readonly programNs: readonly number[];
  readonly eraseNs: number;
  readonly pageTransferNs: number;
  readonly source: string;
}

const tlc = { readNs: [56_500, 77_500, 106_000], programNs: [820_500, 2_225_000, 5_734_000] };

const cells: readonly FemuCell[] = [
  {
    cell: 'slc',
    readNs: [40_000],
    programNs: [800_000],
    eraseNs: 2_000_000,
    pageTransferNs: 20_000,
    source: 'there without a source',
  },
  {
    cell: 'mlc',
    readNs: [48_000, 64_000],
    programNs: [850_000, 2_300_000],
    eraseNs: 3_000_000,
    pageTransferNs: 52_433,
    source: 'there measured on Micron L95B chips of a CNEX drive',
  },
  { cell: 'tlc', ...tlc, eraseNs: 3_000_000, pageTransferNs: 52_433, source: 'there from SimpleSSD (CAL 2018)' },
  {
    cell: 'qlc',
    readNs: [59_325, 85_250, 127_200, 169_600],
    programNs: [861_525, 2_447_500, 6_880_800, 9_174_400],
    eraseNs: 3_000_000,
    pageTransferNs: 52_433,
    source: 'there extrapolated from its TLC; newer headers have other, measured read times',
  },
];

/** The flash chips of FEMU (FAST 2018) behind a controller and a link that take no time, as FEMU's are unless told. */
export const femuProfiles: readonly DriveProfile[] = cells.map((row) => {
  const channelBytesPerSecond = (PAGE_BYTES / row.pageTransferNs) * 1e9;
  return {
    name: `femu-${row.cell}`,
    title: `FEMU's ${row.cell.toUpperCase()} flash: 8 channels x 8 dies, no controller or link time`,
    sources: [`FEMU, hw/femu/nand/nand.h and hw/femu/docs/design/nand-timing.md; ${row.source}`],
    ...cellReliability[row.cell],
    geometry: { pageSizeBytes: PAGE_BYTES, channelCount: CHANNEL_COUNT, diesPerChannel: 8, planesPerDie: 1 },
    timing: {
      flash: {
        cell: row.cell,
        readNs: row.readNs,
        programNs: row.programNs,
        eraseNs: row.eraseNs,
        planes: 'single',
        cacheRead: true,
        cacheProgram: true,
        suspendNs: undefined,
      },
      channel: { bytesPerSecond: channelBytesPerSecond, commandNs: 0 },
      controller: { readNs: 0, writeNs: 0, writeBlockNs: 0, attendNs: 0, otherNs: 0 },
      writeBuffer: { pagesPerPlane: 0, isProtected: false },
      link: { bytesPerSecond: Number.POSITIVE_INFINITY, completionNs: 0 },
      compute: engineAsFastAsChannels(CHANNEL_COUNT, channelBytesPerSecond),
      estimates: [
        'attention engine: FEMU has none; one that keeps pace with all channels at 4 FLOP a byte',
        'page: the tables do not say its size; 16 KiB is that of the chips they were taken from',
        'page types alternate from page to page; FEMU pairs them in shadow order',
      ],
      published: [],
    },
  };
});
