/** Commands for a drive that exists in device time only: what a benchmark of the product would send it. */
import { createSeededRandom } from '../../daemon/base/random.ts';
import { DeviceModel } from '../../daemon/timing/device-model.ts';
import { TimedJob } from '../../daemon/timing/device-job.ts';
import type { DriveProfile } from '../../daemon/profiles/profile.ts';

const BLOCK_BYTES = 4096;
/** Sequential work must go through all page types as often: a multiple of 2, 3 and 4. */
const PAGES_PER_BLOCK = 1152;
/** Rows of each plane that random reads go over. */
const ROW_COUNT = 1024;

export interface Workload {
  /** Commands that are out at once; each is followed by the next as it completes. */
  readonly queueDepth: number;
  readonly commandCount: number;
  /** Bytes of data of a command. */
  readonly commandBytes: number;
  plan(job: TimedJob, command: number): void;
}

export interface WorkloadResult {
  readonly bytesPerSecond: number;
  readonly commandsPerSecond: number;
  readonly latencyNsMean: number;
}

/** The device that a profile with times and a geometry describes. */
export function modelOf({ name, timing, geometry }: DriveProfile): DeviceModel {
  if (timing === undefined || geometry === undefined) throw new RangeError(`profile ${name} has no times`);
  return new DeviceModel(timing, { ...geometry, pagesPerBlock: PAGES_PER_BLOCK });
}

/** Runs a closed loop. The first half fills queues and buffers and does not count. */
export function runWorkload(model: DeviceModel, workload: Workload): WorkloadResult {
  const { queueDepth, commandCount, commandBytes } = workload;
  const job = new TimedJob(model);
  const completedNs = new Float64Array(queueDepth);
  const warmUp = Math.floor(commandCount / 2);
  let beginNs = 0;
  let endNs = 0;
  let latencySumNs = 0;
  for (let command = 0; command < commandCount; command++) {
    let next = 0;
    for (let i = 1; i < queueDepth; i++) if (completedNs[i]! < completedNs[next]!) next = i;
    const arrivalNs = completedNs[next]!;
    if (command === warmUp) beginNs = arrivalNs;
    job.begin(0, arrivalNs);
    workload.plan(job, command);
    completedNs[next] = arrivalNs + job.latencyNs;
    if (command < warmUp) continue;
    latencySumNs += job.latencyNs;
    endNs = Math.max(endNs, arrivalNs);
  }
  const counted = commandCount - warmUp;
  const seconds = (endNs - beginNs) / 1e9;
  return {
    bytesPerSecond: ((counted - 1) * commandBytes) / seconds,
    commandsPerSecond: (counted - 1) / seconds,
    latencyNsMean: latencySumNs / counted,
  };
}

export function sequentialRead(model: DeviceModel, commandBytes: number): Workload {
  const { pageSizeBytes } = model.shape;
  return {
    queueDepth: 32,
    commandCount: 8000,
    commandBytes,
    plan(job, command) {
      job.firmware('read', commandBytes);
      forPages(command, commandBytes, pageSizeBytes, (ppn, bytes) => job.readToHost(ppn, bytes));
    },
  };
}

export function sequentialWrite(model: DeviceModel, commandBytes: number): Workload {
  const { pageSizeBytes } = model.shape;
  return {
    queueDepth: 32,
    commandCount: 16_000,
    commandBytes,
    plan(job, command) {
      job.firmware('write', commandBytes);
      job.hostToDevice(commandBytes);
      forPages(command, commandBytes, pageSizeBytes, (ppn, bytes) => {
        // A page is programmed once all of it is there.
        if (((command + 1) * commandBytes) % pageSizeBytes === 0 || bytes === pageSizeBytes) job.programPosted(ppn);
      });
    },
  };
}

export function randomRead(model: DeviceModel, queueDepth: number, seed: number): Workload {
  const { channelCount, diesPerChannel, planesPerDie } = model.shape;
  const pageCount = channelCount * diesPerChannel * planesPerDie * ROW_COUNT;
  const random = createSeededRandom(seed);
  return {
    queueDepth,
    commandCount: 100_000,
    commandBytes: BLOCK_BYTES,
    plan(job) {
      job.firmware('read', BLOCK_BYTES);
      job.readToHost(random.nextUint32() % pageCount, BLOCK_BYTES);
    },
  };
}

/** Where the pages lie makes no difference to a write: they go to the next place. */
export function randomWrite(model: DeviceModel, queueDepth: number): Workload {
  return { ...sequentialWrite(model, BLOCK_BYTES), queueDepth };
}

export interface AttentionLoad {
  readonly sequenceCount: number;
  readonly kvHeadCount: number;
  readonly queryHeadsPerKvHead: number;
  readonly headDim: number;
  readonly tokenCount: number;
}

const ELEMENT_BYTES = 2;
const KEYS_AND_VALUES = 2;

/** One layer of a decode step at a time: an ATTN with one query token for every sequence, over all of its tokens. */
export function attention(model: DeviceModel, load: AttentionLoad): Workload {
  const { sequenceCount, kvHeadCount, queryHeadsPerKvHead, headDim, tokenCount } = load;
  const { pageSizeBytes, channelCount, diesPerChannel, planesPerDie } = model.shape;
  const rowBytes = headDim * ELEMENT_BYTES;
  const groupTokens = Math.floor(pageSizeBytes / rowBytes);
  const groupCount = Math.floor(tokenCount / groupTokens);
  const streamCount = sequenceCount * kvHeadCount * KEYS_AND_VALUES;
  const unitsPerChannel = diesPerChannel * planesPerDie;
  const unitCount = unitsPerChannel * channelCount;
  const groupBytes = groupTokens * rowBytes;
  const groupFlops = 2 * groupTokens * headDim * queryHeadsPerKvHead;
  const vectorBytes = sequenceCount * kvHeadCount * queryHeadsPerKvHead * rowBytes;
  // As a prefill leaves them: stream after stream, group g of stream s on channel g + s, each channel's units in turn.
  const pages = new Float64Array(streamCount * groupCount);
  const written = new Float64Array(channelCount);
  for (let stream = 0; stream < streamCount; stream++) {
    for (let group = 0; group < groupCount; group++) {
      const channel = (group + stream) % channelCount;
      const place = written[channel]!++;
      const row = Math.floor(place / unitsPerChannel);
      pages[stream * groupCount + group] = row * unitCount + (place % unitsPerChannel) * channelCount + channel;
    }
  }
  return {
    queueDepth: 1,
    commandCount: 4,
    commandBytes: streamCount * groupCount * groupBytes,
    plan(job) {
      job.firmware('attend', 0);
      job.hostToDevice(vectorBytes);
      for (let head = 0; head < streamCount; head += KEYS_AND_VALUES) {
        for (let group = 0; group < groupCount; group++) {
          job.readToCompute(pages[head * groupCount + group]!, groupBytes, groupFlops);
          job.readToCompute(pages[(head + 1) * groupCount + group]!, groupBytes, groupFlops);
        }
      }
      job.join();
      job.finishHeads(sequenceCount * kvHeadCount);
      job.join();
      job.deviceToHost(vectorBytes);
    },
  };
}

/** The pages of a command in a sequence of commands of one size, and how much of each it moves. */
function forPages(
  command: number,
  commandBytes: number,
  pageSizeBytes: number,
  visit: (ppn: number, bytes: number) => void,
): void {
  const endBytes = (command + 1) * commandBytes;
  for (let at = command * commandBytes; at < endBytes; ) {
    const ppn = Math.floor(at / pageSizeBytes);
    const bytes = Math.min(endBytes, (ppn + 1) * pageSizeBytes) - at;
    visit(ppn, bytes);
    at += bytes;
  }
}
