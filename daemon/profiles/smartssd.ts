import { cellReliability } from './cell-reliability.ts';
import type { DriveProfile } from './profile.ts';

const hilos = 'HILOS (ASPLOS 2026)';

/** Samsung's SmartSSD with the attention kernel of HILOS on its FPGA. */
export const smartssd: DriveProfile = {
  name: 'smartssd',
  title: 'Samsung SmartSSD with the attention accelerator of HILOS: FPGA behind a PCIe 3.0 x4 link of its own',
  sources: [
    `${hilos}: 3.0 GB/s from flash to FPGA, accelerator 56.3 GFLOPS with 5 query heads on a KV head, 7.008 PB written`,
    'Samsung SmartSSD: 3.84 TB, V-NAND TLC, PCIe 3.0 x4',
  ],
  ...cellReliability.tlc,
  geometry: { pageSizeBytes: 16_384, channelCount: 8, diesPerChannel: 8, planesPerDie: 2 },
  timing: {
    flash: {
      cell: 'tlc',
      readNs: [45_000, 60_000, 75_000],
      programNs: [700_000, 700_000, 700_000],
      eraseNs: 3_500_000,
      planes: 'together',
      cacheRead: true,
      cacheProgram: true,
      suspendNs: 30_000,
    },
    channel: { bytesPerSecond: 800e6, commandNs: 200 },
    controller: { readNs: 20_000, writeNs: 5000, writeBlockNs: 400, attendNs: 20_000, otherNs: 5000 },
    writeBuffer: { pagesPerPlane: 2, isProtected: true },
    link: { bytesPerSecond: 3.3e9, completionNs: 0 },
    compute: { unitCount: 1, bytesPerSecond: 3.0e9, flopsPerSecond: 56.3e9, headNs: 0 },
    estimates: [
      "flash: the product's is not described; 64-layer V-NAND of its time, two planes, 8 channels of 800 MT/s",
      'tPROG: a third of a one-shot program of three pages, for each of them',
      'firmware: as that of other NVMe drives of its time',
      'link: what PCIe 3.0 x4 leaves to data',
      "engine: bytes at the rate of its link, which is below the kernel's own",
    ],
    published: [{ figure: 'attention', value: 3.0e9, source: `${hilos}: reads from flash to FPGA bound the kernel` }],
  },
};
