import { cellReliability } from './cell-reliability.ts';
import type { DriveProfile } from './profile.ts';
import { engineAsFastAsChannels } from './timing-parts.ts';

const CHANNEL_COUNT = 16;
const CHANNEL_BYTES_PER_SECOND = 2.4e9;
const brief = 'Micron 9550 NVMe SSD product brief';

/** A data-centre drive of the PCIe 5.0 generation. */
export const micron9550: DriveProfile = {
  name: 'micron-9550',
  title: 'Micron 9550, 7.68 TB: 232-layer TLC of six planes, PCIe 5.0 x4',
  sources: [
    `${brief}: 14.0 / 10.0 GB/s, 3.3 M random reads a second, typical latency 60 us read, 15 us write`,
    'Micron 232-layer TLC: six planes, 2,400 MT/s (ONFI 5.0), 1 Tbit a die',
  ],
  ...cellReliability.tlc,
  geometry: { pageSizeBytes: 16_384, channelCount: CHANNEL_COUNT, diesPerChannel: 4, planesPerDie: 6 },
  timing: {
    flash: {
      cell: 'tlc',
      readNs: [40_000, 45_000, 50_000],
      programNs: [614_400, 614_400, 614_400],
      eraseNs: 5_000_000,
      planes: 'independent',
      cacheRead: true,
      cacheProgram: true,
      suspendNs: 20_000,
    },
    channel: { bytesPerSecond: CHANNEL_BYTES_PER_SECOND, commandNs: 100 },
    controller: { readNs: 11_000, writeNs: 13_000, writeBlockNs: 200, attendNs: 11_000, otherNs: 5000 },
    writeBuffer: { pagesPerPlane: 2, isProtected: true },
    link: { bytesPerSecond: 14.0e9, completionNs: 1000 },
    compute: engineAsFastAsChannels(CHANNEL_COUNT, CHANNEL_BYTES_PER_SECOND),
    estimates: [
      'channels: 16, as data-centre controllers of the generation have; dies: 64 of 1 Tbit make 7.68 TB',
      'tR: what the typical read latency leaves after firmware, transfer and link',
      'tPROG: 64 dies of 160 MB/s, as ISSCC papers of the generation state, make 10 GB/s; spread over three pages',
      'firmware: the rest of the typical latencies; erase and suspend: usual for 3D TLC',
      'link: sequential reads are bound by it',
      'attention engine: the product has none; one that keeps pace with all channels at 4 FLOP a byte',
    ],
    published: [
      { figure: 'sequentialRead', value: 14.0e9, source: brief },
      { figure: 'sequentialWrite', value: 10.0e9, source: brief },
      { figure: 'randomRead', value: 3.3e6, source: brief },
      { figure: 'randomReadQd1', value: 1e9 / 60_000, source: `${brief}: 60 us` },
      { figure: 'randomWriteQd1', value: 1e9 / 15_000, source: `${brief}: 15 us` },
    ],
  },
};
