import { cellReliability } from './cell-reliability.ts';
import type { DriveProfile } from './profile.ts';
import { engineAsFastAsChannels } from './timing-parts.ts';

const CHANNEL_COUNT = 8;
const CHANNEL_BYTES_PER_SECOND = 800e6;
const dataSheet = 'Samsung SSD 970 PRO data sheet, 512 GB';

/** A consumer drive as NVMeVirt's authors fitted it (FAST 2023). */
export const nvmevirt970Pro: DriveProfile = {
  name: 'nvmevirt-970-pro',
  title: 'Samsung 970 PRO as NVMeVirt models it: MLC, 8 channels x 2 dies, PCIe 3.0 x4',
  sources: ['NVMeVirt, ssd_config.h (SAMSUNG_970PRO) and ssd.c', dataSheet],
  ...cellReliability.mlc,
  geometry: { pageSizeBytes: 32_768, channelCount: CHANNEL_COUNT, diesPerChannel: 2, planesPerDie: 1 },
  timing: {
    flash: {
      cell: 'mlc',
      readNs: [36_013 - 6000, 36_013 + 6000],
      shortRead: { bytesMax: 4096, readNs: [35_760 - 6000, 35_760 + 6000] },
      programNs: [185_000, 185_000],
      eraseNs: 0,
      planes: 'single',
      cacheRead: false,
      cacheProgram: false,
      suspendNs: undefined,
    },
    channel: { bytesPerSecond: CHANNEL_BYTES_PER_SECOND, commandNs: 0 },
    controller: {
      readNs: 30_490,
      shortRead: { bytesMax: 16_384, ns: 21_500 },
      writeNs: 4000,
      writeBlockNs: 460,
      attendNs: 30_490,
      otherNs: 4000,
    },
    writeBuffer: { pagesPerPlane: 2, isProtected: false },
    link: { bytesPerSecond: 3360e6, completionNs: 0 },
    compute: engineAsFastAsChannels(CHANNEL_COUNT, CHANNEL_BYTES_PER_SECOND),
    estimates: [
      'attention engine: the product has none; one that keeps pace with all channels at 4 FLOP a byte',
      'firmware on an ATTN: as on a read; on other commands: as on a write',
    ],
    published: [
      { figure: 'sequentialRead', value: 3500e6, source: dataSheet },
      { figure: 'sequentialWrite', value: 2300e6, source: dataSheet },
      { figure: 'randomRead', value: 370e3, source: dataSheet },
      { figure: 'randomReadQd1', value: 15e3, source: dataSheet },
      { figure: 'randomWriteQd1', value: 55e3, source: dataSheet },
    ],
  },
};
