import { cellReliability } from './cell-reliability.ts';
import type { DriveProfile } from './profile.ts';

const paper = 'InstAttention (HPCA 2025)';

/** The computational storage drive that InstAttention's evaluation emulates. */
export const instattention: DriveProfile = {
  name: 'instattention',
  title: 'the drive of the InstAttention paper: 8 channels of 1.4 GB/s, attention engine on an FPGA, PCIe 4.0 x4',
  sources: [
    `${paper}, section VI: 8 x 1.4 GB/s inside, 7 GB/s outside, 4 KiB pages, table I (engine), 3,000 cycles`,
    'Cosmos+ OpenSSD, GreedyFTL: 8 channels x 8 ways x 2 LUNs',
    'NVMeVirt, ssd_config.h (SAMSUNG_970PRO): read of 4 KiB, firmware; the paper emulates with NVMeVirt',
  ],
  ...cellReliability.mlc,
  geometry: { pageSizeBytes: 4096, channelCount: 8, diesPerChannel: 16, planesPerDie: 1 },
  timing: {
    flash: {
      cell: 'mlc',
      readNs: [35_760 - 6000, 35_760 + 6000],
      programNs: [185_000, 185_000],
      eraseNs: 3_000_000,
      planes: 'single',
      cacheRead: false,
      cacheProgram: false,
      suspendNs: undefined,
    },
    channel: { bytesPerSecond: 1.4e9, commandNs: 0 },
    controller: {
      readNs: 30_490,
      shortRead: { bytesMax: 16_384, ns: 21_500 },
      writeNs: 4000,
      writeBlockNs: 460,
      attendNs: 30_490,
      otherNs: 4000,
    },
    writeBuffer: { pagesPerPlane: 2, isProtected: true },
    link: { bytesPerSecond: 7e9, completionNs: 0 },
    compute: { unitCount: 1, bytesPerSecond: 12.7e9, flopsPerSecond: 12.7e9, headNs: 0 },
    estimates: [
      "dies: the paper doesn't say; those of the board family that its latencies were measured on",
      "tR, tPROG, firmware: measured on an OpenSSD and not printed; NVMeVirt's of the 970 PRO stand in",
      'tBERS: a usual one for MLC',
      'softmax does not hold up the engine (headNs 0): table I has 164 us and not for how many tokens',
    ],
    published: [
      { figure: 'attention', value: 7.66e9, source: `${paper}, table III: dense decode, OPT-13B, batch 64` },
      { figure: 'attention', value: 7.66e9 / 0.807, source: 'the same over the 80.7 % of decoding that reads K and V' },
    ],
  },
};
