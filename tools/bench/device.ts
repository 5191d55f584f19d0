/**
 * Device time against what others state: closed forms of the profile's own numbers, and the figures that the profile's
 * sources publish. Nothing is measured on this machine: the same profile gives the same lines everywhere.
 */
import { profiles } from '../../daemon/profiles/profiles.ts';
import type { DriveProfile } from '../../daemon/profiles/profile.ts';
import type { Figure, TimingProfile } from '../../daemon/profiles/timing-profile.ts';
import type { DeviceModel } from '../../daemon/timing/device-model.ts';
import type { Bench } from './bench.ts';
import {
  attention,
  type AttentionLoad,
  modelOf,
  randomRead,
  randomWrite,
  runWorkload,
  sequentialRead,
  sequentialWrite,
  type WorkloadResult,
} from './device-workloads.ts';
import { type BenchOutput, compare } from './report.ts';

const SEQUENTIAL_BYTES = 131_072;
const DEEP = 256;
const SEED = 1;
/** OPT-13B in the middle of 1,024 tokens in and 1,024 out, as in the InstAttention paper; fewer sequences do the same. */
const OPT_13B: AttentionLoad = {
  sequenceCount: 8,
  kvHeadCount: 40,
  queryHeadsPerKvHead: 1,
  headDim: 128,
  tokenCount: 1536,
};

interface Row {
  readonly figure: Figure;
  readonly metric: string;
  readonly unit: 'GB/s' | '1/s';
  run(model: DeviceModel): WorkloadResult;
  /** What the slowest of its parts allows, by the profile's numbers; commands per second or bytes per second. */
  bound(model: DeviceModel): number;
}

const rows: readonly Row[] = [
  {
    figure: 'sequentialRead',
    metric: 'read, 128 KiB, QD 32',
    unit: 'GB/s',
    run: (model) => runWorkload(model, sequentialRead(model, SEQUENTIAL_BYTES)),
    bound: (model) => Math.min(model.profile.link.bytesPerSecond, flashReadBytesPerSecond(model)),
  },
  {
    figure: 'sequentialWrite',
    metric: 'write, 128 KiB, QD 32',
    unit: 'GB/s',
    run: (model) => runWorkload(model, sequentialWrite(model, SEQUENTIAL_BYTES)),
    bound: (model) => Math.min(model.profile.link.bytesPerSecond, flashWriteBytesPerSecond(model)),
  },
  {
    figure: 'randomRead',
    metric: `random read, 4 KiB, QD ${DEEP}`,
    unit: '1/s',
    run: (model) => runWorkload(model, randomRead(model, DEEP, SEED)),
    bound: (model) => Math.min(model.profile.link.bytesPerSecond / 4096, flashReadsPerSecond(model)),
  },
  {
    figure: 'randomReadQd1',
    metric: 'random read, 4 KiB, QD 1',
    unit: '1/s',
    run: (model) => runWorkload(model, randomRead(model, 1, SEED)),
    bound: (model) => 1e9 / readLatencyNs(model),
  },
  {
    figure: 'randomWriteQd1',
    metric: 'write, 4 KiB, QD 1',
    unit: '1/s',
    run: (model) => runWorkload(model, randomWrite(model, 1)),
    bound: (model) => 1e9 / writeLatencyNs(model),
  },
  {
    figure: 'attention',
    metric: 'attention, OPT-13B, dense',
    unit: 'GB/s',
    run: (model) => runWorkload(model, attention(model, OPT_13B)),
    bound: (model) => Math.min(computeBytesPerSecond(model), flashReadBytesPerSecond(model)),
  },
];

export const deviceBench: Bench = {
  name: 'device',
  summary: "device time of every profile against closed forms and its sources' figures; nothing here is measured",
  run(_options, output) {
    for (const profile of profiles) if (profile.timing !== undefined) measure(profile, profile.timing, output);
    return Promise.resolve();
  },
};

function measure(profile: DriveProfile, timing: TimingProfile, output: BenchOutput): void {
  for (const { figure, metric, unit, run, bound } of rows) {
    const result = run(modelOf(profile));
    const scale = unit === 'GB/s' ? 1e9 : 1;
    const value = (unit === 'GB/s' ? result.bytesPerSecond : result.commandsPerSecond) / scale;
    const common = { bench: 'device', case: profile.name, metric, value, unit, samples: 1 };
    output.line(compare(common, { name: 'closed form', value: bound(modelOf(profile)) / scale }));
    for (const published of timing.published.filter((entry) => entry.figure === figure)) {
      output.line(compare(common, { name: published.source, value: published.value / scale }));
    }
  }
}

// --- Closed forms ---

const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

const unitsOf = ({ profile, shape }: DeviceModel): number => {
  const isParallel = profile.flash.planes !== 'single';
  return shape.channelCount * shape.diesPerChannel * (isParallel ? shape.planesPerDie : 1);
};

const transferNs = ({ profile }: DeviceModel, bytes: number): number =>
  profile.channel.commandNs + (bytes / profile.channel.bytesPerSecond) * 1e9;

const channelBytesPerSecond = (model: DeviceModel, bytes: number): number =>
  (model.shape.channelCount * bytes * 1e9) / transferNs(model, bytes);

/** A page in tR, or in tR and transfer where the register can't do both; on all dies, at most what channels carry. */
function flashReadBytesPerSecond(model: DeviceModel): number {
  const { flash } = model.profile;
  const { pageSizeBytes } = model.shape;
  const pageNs = mean(readNsFor(model, pageSizeBytes)) + (flash.cacheRead ? 0 : transferNs(model, pageSizeBytes));
  const dies = (unitsOf(model) * pageSizeBytes * 1e9) / pageNs;
  return Math.min(dies, channelBytesPerSecond(model, pageSizeBytes));
}

function flashReadsPerSecond(model: DeviceModel): number {
  const { flash } = model.profile;
  // Random reads on the planes of a die don't join.
  const dies = flash.planes === 'independent' ? unitsOf(model) : model.shape.channelCount * model.shape.diesPerChannel;
  const readNs = mean(readNsFor(model, 4096)) + (flash.cacheRead ? 0 : transferNs(model, 4096));
  return Math.min((dies * 1e9) / readNs, channelBytesPerSecond(model, 4096) / 4096);
}

function flashWriteBytesPerSecond(model: DeviceModel): number {
  const { flash } = model.profile;
  const { pageSizeBytes } = model.shape;
  const pageNs = mean(flash.programNs) + (flash.cacheProgram ? 0 : transferNs(model, pageSizeBytes));
  const dies = (unitsOf(model) * pageSizeBytes * 1e9) / pageNs;
  return Math.min(dies, channelBytesPerSecond(model, pageSizeBytes));
}

const computeBytesPerSecond = ({ profile: { compute } }: DeviceModel): number =>
  compute.unitCount * Math.min(compute.bytesPerSecond, compute.flopsPerSecond);

function readLatencyNs(model: DeviceModel): number {
  const { controller, link } = model.profile;
  const firmwareNs = controller.shortRead?.ns ?? controller.readNs;
  return (
    firmwareNs +
    mean(readNsFor(model, 4096)) +
    transferNs(model, 4096) +
    (4096 / link.bytesPerSecond) * 1e9 +
    link.completionNs
  );
}

/** Into the buffer; without one, every page's worth of commands waits for a program. */
function writeLatencyNs(model: DeviceModel): number {
  const { controller, link, writeBuffer, flash } = model.profile;
  const linkNs = (4096 / link.bytesPerSecond) * 1e9 + link.completionNs;
  const bufferedNs = controller.writeNs + controller.writeBlockNs + linkNs;
  if (writeBuffer.pagesPerPlane > 0) return bufferedNs;
  const programNs = mean(flash.programNs) + transferNs(model, model.shape.pageSizeBytes);
  return bufferedNs + programNs / (model.shape.pageSizeBytes / 4096);
}

function readNsFor({ profile: { flash } }: DeviceModel, bytes: number): readonly number[] {
  const { readNs, shortRead } = flash;
  return shortRead !== undefined && bytes <= shortRead.bytesMax ? shortRead.readNs : readNs;
}
