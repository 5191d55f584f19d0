import {
  DEVICE_TRACE_MAGIC,
  DEVICE_TRACE_VERSION,
  deviceTraceHeader,
  deviceTraceRecord,
  firmwareWork,
  type FirmwareWork,
  traceKinds,
} from '../../spec/device-trace.ts';
import { DriveError } from '../base/errors.ts';
import { profileOf } from '../profiles/profiles.ts';
import type { DriveProfile } from '../profiles/profile.ts';
import type { TimingProfile } from '../profiles/timing-profile.ts';
import { type ReusableJob, TimedJob } from './device-job.ts';
import { DeviceModel, type DeviceUsage } from './device-model.ts';

export type TraceHeader = ReturnType<typeof deviceTraceHeader.decode>;

export interface ReplayedJob {
  readonly label: number;
  readonly arrivalNs: number;
  readonly recordedLatencyNs: number;
  /** As the profile of the replay has it. */
  readonly latencyNs: number;
}

/** Most jobs that are under way at once in a trace that a drive can have made. */
const OPEN_JOBS_MAX = 65_536;
const RECORD_BYTES = deviceTraceRecord.sizeBytes;
const workOf = new Map<number, FirmwareWork>(
  Object.entries(firmwareWork).map(([name, code]) => [code, name as FirmwareWork]),
);

type TraceRecord = ReturnType<typeof deviceTraceRecord.decode>;

interface OpenJob {
  readonly job: ReusableJob;
  label: number;
  arrivalNs: number;
}

/** DriveError mediaFormat: what is wrong with it. */
export function readTraceHeader(bytes: Uint8Array): TraceHeader {
  const wrong = (what: string): DriveError => new DriveError('mediaFormat', `device trace: ${what}`);
  if (bytes.length < deviceTraceHeader.sizeBytes) {
    throw wrong(`${bytes.length} bytes long; the header alone has ${deviceTraceHeader.sizeBytes}`);
  }
  const header = deviceTraceHeader.decode(bytes);
  if (header.magic !== DEVICE_TRACE_MAGIC) throw wrong(`does not begin with ${DEVICE_TRACE_MAGIC}`);
  if (header.version !== DEVICE_TRACE_VERSION) {
    throw wrong(`version ${header.version}; this program reads ${DEVICE_TRACE_VERSION}`);
  }
  const { channelCount, diesPerChannel, planesPerDie, pagesPerBlock, pageSizeBytes } = header;
  const isPlausible =
    isWithin(channelCount, 1, 64) &&
    isWithin(diesPerChannel, 1, 64) &&
    isWithin(planesPerDie, 1, 8) &&
    isWithin(pageSizeBytes, 4096, 65_536) &&
    isWithin(pagesPerBlock, 1, 65_536);
  if (!isPlausible) {
    const blocks = `blocks of ${pagesPerBlock} pages of ${pageSizeBytes} bytes`;
    throw wrong(`${channelCount} x ${diesPerChannel} x ${planesPerDie} planes, ${blocks}: can't be`);
  }
  return header;
}

const isWithin = (value: number, min: number, max: number): boolean => value >= min && value <= max;

/**
 * Books a trace's jobs again, in their order, on a device of the trace's array: with the recorded profile every latency
 * is the recorded one. Feed it the bytes after the header, in pieces of any size.
 */
export class TraceReplay {
  /** Of the replay. */
  readonly profile: DriveProfile;
  readonly #model: DeviceModel;
  readonly #pageSizeBytes: number;
  readonly #completed: (job: ReplayedJob) => void;
  readonly #open = new Map<number, OpenJob>();
  readonly #idle: OpenJob[] = [];
  #rest = new Uint8Array(0);
  #recordCount = 0;
  #isEnded = false;

  /** DriveError invalidField: a profile that there isn't, or without times. */
  constructor(header: TraceHeader, profileName: string | undefined, completed: (job: ReplayedJob) => void) {
    this.profile = profileOf(profileName ?? header.profile);
    this.#model = new DeviceModel(timingOf(this.profile), header);
    this.#pageSizeBytes = header.pageSizeBytes;
    this.#completed = completed;
  }

  /** Whether the recording was ended in order; otherwise its end is missing. */
  get isComplete(): boolean {
    return this.#isEnded;
  }

  /** Jobs that the trace leaves open. */
  get openCount(): number {
    return this.#open.size;
  }

  usage(): DeviceUsage {
    return this.#model.usage();
  }

  /** DriveError mediaFormat names the record that can't be. */
  push(bytes: Uint8Array): void {
    const joined = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    let at = 0;
    for (; at + RECORD_BYTES <= joined.length; at += RECORD_BYTES) {
      this.#apply(deviceTraceRecord.decode(joined, at));
      this.#recordCount++;
    }
    this.#rest = joined.slice(at);
  }

  #apply(record: TraceRecord): void {
    const { kind, job: number, label, value } = record;
    if (this.#isEnded) throw this.#wrong('follows the last one');
    switch (kind) {
      case traceKinds.last:
        if (value !== this.#recordCount) throw this.#wrong(`says that ${value} records came before it`);
        this.#isEnded = true;
        return;
      case traceKinds.begin:
        this.#begin(number, label, value);
        return;
      default:
    }
    const open = this.#open.get(number);
    if (open === undefined) throw this.#wrong(`is of job ${number}, which has not begun`);
    if (kind !== traceKinds.end) {
      this.#operate(open.job, record);
      return;
    }
    this.#open.delete(number);
    this.#idle.push(open);
    const { arrivalNs, job } = open;
    this.#completed({ label: open.label, arrivalNs, recordedLatencyNs: value, latencyNs: job.latencyNs });
  }

  #begin(number: number, label: number, arrivalNs: number): void {
    if (this.#open.has(number)) throw this.#wrong(`begins job ${number} again`);
    if (this.#open.size >= OPEN_JOBS_MAX) throw this.#wrong(`begins one job more than ${OPEN_JOBS_MAX}`);
    if (arrivalNs >= 2 ** 53) throw this.#wrong(`arrives at ${arrivalNs} ns`);
    const open = this.#idle.pop() ?? { job: new TimedJob(this.#model), label, arrivalNs };
    open.label = label;
    open.arrivalNs = arrivalNs;
    open.job.begin(label, arrivalNs);
    this.#open.set(number, open);
  }

  #operate(job: ReusableJob, record: TraceRecord): void {
    const { kind, label, ppn, bytes, value } = record;
    switch (kind) {
      case traceKinds.firmware: {
        const work = workOf.get(label);
        if (work === undefined) throw this.#wrong(`has firmware work ${label}`);
        return job.firmware(work, bytes);
      }
      case traceKinds.hostToDevice:
        return job.hostToDevice(bytes);
      case traceKinds.deviceToHost:
        return job.deviceToHost(bytes);
      case traceKinds.read:
      case traceKinds.readToHost:
      case traceKinds.readToCompute:
        return this.#read(job, record);
      case traceKinds.programPosted:
        return job.programPosted(ppn);
      case traceKinds.program:
        return job.program(ppn);
      case traceKinds.erase:
        return job.erase(ppn);
      case traceKinds.flush:
        return job.flush();
      case traceKinds.compute:
        return job.compute(bytes, value);
      case traceKinds.finishHeads:
        return job.finishHeads(bytes);
      case traceKinds.join:
        return job.join();
      default:
        throw this.#wrong(`is of kind ${kind}`);
    }
  }

  #read(job: ReusableJob, { kind, ppn, bytes, value, attemptCount }: TraceRecord): void {
    if (bytes < 1 || bytes > this.#pageSizeBytes) throw this.#wrong(`reads ${bytes} bytes of a page`);
    if (attemptCount < 1) throw this.#wrong('reads a page no time');
    if (kind === traceKinds.read) job.read(ppn, bytes, attemptCount);
    else if (kind === traceKinds.readToHost) job.readToHost(ppn, bytes, attemptCount);
    else job.readToCompute(ppn, bytes, value, attemptCount);
  }

  #wrong(what: string): DriveError {
    return new DriveError('mediaFormat', `device trace: record ${this.#recordCount} ${what}`);
  }
}

/** DriveError invalidField: the profile has no times. */
export function timingOf(profile: DriveProfile): TimingProfile {
  if (profile.timing !== undefined) return profile.timing;
  const detail = `profile ${profile.name} has no times; make a drive with a profile that has them (format --profile)`;
  throw new DriveError('invalidField', detail);
}
