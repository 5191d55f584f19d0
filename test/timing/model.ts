/** Small devices for tests: every cost zero or off unless given. */
import { type ComputeTiming, type FlashTiming, type TimingProfile } from '../../daemon/profiles/timing-profile.ts';
import type { DeviceShape } from '../../daemon/timing/device-shape.ts';
import { DeviceModel } from '../../daemon/timing/device-model.ts';
import { TimedJob } from '../../daemon/timing/device-job.ts';

const FREE = Number.POSITIVE_INFINITY;

export interface SmallDevice {
  readonly flash?: Partial<FlashTiming>;
  readonly shape?: Partial<DeviceShape>;
  readonly compute?: Partial<ComputeTiming>;
  readonly channelBytesPerSecond?: number;
  readonly commandNs?: number;
  readonly linkBytesPerSecond?: number;
  readonly pagesPerPlane?: number;
  readonly isProtected?: boolean;
}

export const PAGE_BYTES = 4096;

export function smallProfile(options: SmallDevice = {}): TimingProfile {
  return {
    flash: {
      cell: 'slc',
      readNs: [40_000],
      programNs: [200_000],
      eraseNs: 2_000_000,
      planes: 'single',
      cacheRead: true,
      cacheProgram: true,
      suspendNs: undefined,
      ...options.flash,
    },
    channel: { bytesPerSecond: options.channelBytesPerSecond ?? FREE, commandNs: options.commandNs ?? 0 },
    controller: { readNs: 0, writeNs: 0, writeBlockNs: 0, attendNs: 0, otherNs: 0 },
    writeBuffer: { pagesPerPlane: options.pagesPerPlane ?? 0, isProtected: options.isProtected ?? false },
    link: { bytesPerSecond: options.linkBytesPerSecond ?? FREE, completionNs: 0 },
    compute: { unitCount: 1, bytesPerSecond: FREE, flopsPerSecond: FREE, headNs: 0, ...options.compute },
    estimates: [],
    published: [],
  };
}

export function smallModel(options: SmallDevice = {}): DeviceModel {
  const whole = { pageSizeBytes: PAGE_BYTES, pagesPerBlock: 768, channelCount: 1, diesPerChannel: 1, planesPerDie: 1 };
  const shape = { ...whole, ...options.shape };
  return new DeviceModel(smallProfile(options), shape);
}

/** Runs one job and returns how long it took. */
export function latencyOf(model: DeviceModel, arrivalNs: number, work: (job: TimedJob) => void): number {
  const job = new TimedJob(model);
  job.begin(0, arrivalNs);
  work(job);
  return job.latencyNs;
}

/** Physical page of a die or plane: row `row` of unit `unit`. */
export const pageOf = (model: DeviceModel, unit: number, row: number): number => {
  const { channelCount, diesPerChannel, planesPerDie } = model.shape;
  return row * channelCount * diesPerChannel * planesPerDie + unit;
};
