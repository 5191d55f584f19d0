import {
  DEVICE_TRACE_MAGIC,
  DEVICE_TRACE_VERSION,
  deviceTraceHeader,
  deviceTraceRecord,
  type TraceKind,
  traceKinds,
} from '../../spec/device-trace.ts';
import type { JobObserver, JobOperation } from './device-job.ts';
import type { DeviceShape } from './device-shape.ts';

/** Where a trace goes: takes all bytes or throws. They may be changed when it returns. */
export type TraceSink = (bytes: Uint8Array) => void;

export interface TraceDescription {
  readonly shape: DeviceShape;
  readonly profile: string;
  readonly serial: string;
  readonly startedAtMs: number;
}

const RECORD_BYTES = deviceTraceRecord.sizeBytes;
/** Records kept back before they are handed on. */
const BUFFER_RECORDS = 8192;
const at = deviceTraceRecord.offsetOf;

/** Records what jobs do. What it has not handed on yet is bounded; `flush` and `close` hand on all of it. */
export class TraceWriter implements JobObserver {
  readonly #sink: TraceSink;
  readonly #buffer = new Uint8Array(BUFFER_RECORDS * RECORD_BYTES);
  readonly #view = new DataView(this.#buffer.buffer);
  #bufferedRecords = 0;
  #recordCount = 0;

  constructor(description: TraceDescription, sink: TraceSink) {
    this.#sink = sink;
    const { channelCount, diesPerChannel, planesPerDie, pagesPerBlock, pageSizeBytes } = description.shape;
    const { profile, serial, startedAtMs } = description;
    const shape = { channelCount, diesPerChannel, planesPerDie, pagesPerBlock, pageSizeBytes };
    const version = DEVICE_TRACE_VERSION;
    sink(deviceTraceHeader.encode({ magic: DEVICE_TRACE_MAGIC, version, ...shape, profile, serial, startedAtMs }));
  }

  begin(job: number, label: number, arrivalNs: number): void {
    this.#write(traceKinds.begin, job, label, arrivalNs);
  }

  operation(job: number, kind: TraceKind, { label, ppn, bytes, value, attemptCount }: JobOperation): void {
    const start = this.#write(traceKinds[kind], job, label, value);
    this.#buffer[start + at.attemptCount] = attemptCount;
    this.#view.setUint32(start + at.ppn, ppn, true);
    this.#view.setUint32(start + at.bytes, bytes, true);
  }

  end(job: number, latencyNs: number): void {
    this.#write(traceKinds.end, job, 0, latencyNs);
  }

  flush(): void {
    if (this.#bufferedRecords === 0) return;
    this.#sink(this.#buffer.subarray(0, this.#bufferedRecords * RECORD_BYTES));
    this.#bufferedRecords = 0;
  }

  /** The recording ends in order. */
  close(): void {
    this.#write(traceKinds.last, 0, 0, this.#recordCount);
    this.flush();
  }

  /** Returns where the record begins in the buffer; its other fields are zero. */
  #write(kind: number, job: number, label: number, value: number): number {
    if (this.#bufferedRecords === BUFFER_RECORDS) this.flush();
    const start = this.#bufferedRecords++ * RECORD_BYTES;
    const view = this.#view;
    this.#buffer.fill(0, start, start + RECORD_BYTES);
    this.#buffer[start + at.kind] = kind;
    view.setUint16(start + at.label, label, true);
    view.setUint32(start + at.job, job, true);
    view.setUint32(start + at.value, value % 2 ** 32, true);
    view.setUint32(start + at.value + 4, Math.floor(value / 2 ** 32), true);
    this.#recordCount++;
    return start;
  }
}
