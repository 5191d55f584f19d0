import { firmwareWork, type FirmwareWork, type TraceKind } from '../../spec/device-trace.ts';
import type { DeviceModel } from './device-model.ts';

/**
 * One host command, or one step of background work, in device time: when it arrived, its operations in the order in which
 * they were planned, and when the last of them ends.
 *
 * Operations begin when what `join` waited for last has ended (at first: at the arrival), all of them together; what a
 * die, channel, unit or link can't do at once queues there. Pages are given by their physical page number; nothing here
 * knows what they hold.
 */
export interface DeviceJob {
  /** Firmware's work on the command, then whatever follows. `bytes` of data. */
  firmware(work: FirmwareWork, bytes: number): void;
  /** Data from the host, then whatever follows. */
  hostToDevice(bytes: number): void;
  deviceToHost(bytes: number): void;
  /** Into the controller. `attemptCount`: reads with shifted thresholds count too; default: as many as the cells need. */
  read(ppn: number, bytes: number, attemptCount?: number): void;
  /** And on to the host, as the page comes. */
  readToHost(ppn: number, bytes: number, attemptCount?: number): void;
  /** And on to a compute unit, which does `flops` on it. */
  readToCompute(ppn: number, bytes: number, flops: number, attemptCount?: number): void;
  /** A page of the host's: the job ends no earlier than when the write buffer has it. */
  programPosted(ppn: number): void;
  /** A page of the drive's own. */
  program(ppn: number): void;
  /** The block of one unit that the page is in. Nobody waits for it but what comes to the die after it. */
  erase(ppn: number): void;
  /** What was posted so far is safe. */
  flush(): void;
  /** Rows that are in the drive's memory. */
  compute(bytes: number, flops: number): void;
  /** What attention does once for each head, when all of its keys and values were there. */
  finishHeads(headCount: number): void;
  /** What follows begins when everything so far has ended. */
  join(): void;
  /** From the arrival to the end of what was booked so far, and until the host sees it. */
  readonly latencyNs: number;
}

/** A job as whoever runs it sees it: used again for the next command. */
export interface ReusableJob extends DeviceJob {
  /** `label` as in spec/device-trace.ts. No earlier than any job before it. */
  begin(label: number, arrivalNs: number): void;
  end(): void;
}

/** What a model of time must know of cells. */
export interface CellReads {
  /** Reads beyond the first that a read of the page takes now. */
  retryCount(ppn: number): number;
}

/** Where jobs come from. */
export interface DeviceTime {
  /** From here on its reads are of these cells; before, one read of a page is enough. */
  readFrom(cells: CellReads): void;
  createJob(): ReusableJob;
  /**
   * When a step of background work arrives: now; or, if a host's command waits for it, with the latest command, so that it
   * doesn't matter how long real work takes.
   */
  backgroundArrivalNs(isForHost: boolean): number;
}

/** Hears what jobs do, in the order in which they do it. */
export interface JobObserver {
  begin(job: number, label: number, arrivalNs: number): void;
  /** Numbers that a kind of operation doesn't have are 0. */
  operation(job: number, kind: TraceKind, operation: JobOperation): void;
  end(job: number, latencyNs: number): void;
}

export interface JobOperation {
  label: number;
  ppn: number;
  bytes: number;
  value: number;
  attemptCount: number;
}

/** Where device time is not modelled. */
export const untimed: ReusableJob = Object.freeze({
  latencyNs: 0,
  begin: () => undefined,
  end: () => undefined,
  firmware: () => undefined,
  hostToDevice: () => undefined,
  deviceToHost: () => undefined,
  read: () => undefined,
  readToHost: () => undefined,
  readToCompute: () => undefined,
  programPosted: () => undefined,
  program: () => undefined,
  erase: () => undefined,
  flush: () => undefined,
  compute: () => undefined,
  finishHeads: () => undefined,
  join: () => undefined,
});

/** A drive without device time. */
export const noDeviceTime: DeviceTime = Object.freeze({
  readFrom: () => undefined,
  createJob: () => untimed,
  backgroundArrivalNs: () => 0,
});

export interface JobModules {
  readonly observer?: JobObserver | undefined;
  readonly cells?: CellReads;
}

const perfectCells: CellReads = Object.freeze({ retryCount: () => 0 });

/** A job on a device. An operation costs no garbage. */
export class TimedJob implements ReusableJob {
  readonly #model: DeviceModel;
  readonly #observer: JobObserver | undefined;
  readonly #cells: CellReads;
  /** What the observer is told; the same object each time. */
  readonly #told: JobOperation = { label: 0, ppn: 0, bytes: 0, value: 0, attemptCount: 0 };
  #number = 0;
  #arrivalNs = 0;
  #readyNs = 0;
  #endNs = 0;

  constructor(model: DeviceModel, { observer, cells = perfectCells }: JobModules = {}) {
    this.#model = model;
    this.#observer = observer;
    this.#cells = cells;
  }

  get latencyNs(): number {
    return this.#endNs - this.#arrivalNs + this.#model.profile.link.completionNs;
  }

  begin(label: number, arrivalNs: number): void {
    const wholeNs = Math.floor(arrivalNs);
    this.#number = this.#model.arrive(wholeNs);
    this.#arrivalNs = wholeNs;
    this.#readyNs = wholeNs;
    this.#endNs = wholeNs;
    this.#observer?.begin(this.#number, label, wholeNs);
  }

  end(): void {
    this.#observer?.end(this.#number, this.latencyNs);
  }

  firmware(work: FirmwareWork, bytes: number): void {
    this.#observe('firmware', 0, bytes, 0, 0, firmwareWork[work]);
    this.#then(this.#readyNs + this.#model.firmwareNs(work, bytes));
  }

  hostToDevice(bytes: number): void {
    this.#observe('hostToDevice', 0, bytes);
    this.#then(this.#model.hostToDevice(this.#readyNs, bytes));
  }

  deviceToHost(bytes: number): void {
    this.#observe('deviceToHost', 0, bytes);
    this.#until(this.#model.deviceToHost(this.#readyNs, bytes));
  }

  read(ppn: number, bytes: number, attemptCount = this.#attempts(ppn)): void {
    this.#observe('read', ppn, bytes, 0, attemptCount);
    this.#until(this.#model.read(this.#readyNs, ppn, bytes, attemptCount, this.#number));
  }

  readToHost(ppn: number, bytes: number, attemptCount = this.#attempts(ppn)): void {
    this.#observe('readToHost', ppn, bytes, 0, attemptCount);
    this.#until(this.#model.readToHost(this.#readyNs, ppn, bytes, attemptCount, this.#number));
  }

  readToCompute(ppn: number, bytes: number, flops: number, attemptCount = this.#attempts(ppn)): void {
    this.#observe('readToCompute', ppn, bytes, flops, attemptCount);
    const model = this.#model;
    this.#until(model.compute(model.read(this.#readyNs, ppn, bytes, attemptCount, this.#number), bytes, flops));
  }

  programPosted(ppn: number): void {
    this.#observe('programPosted', ppn);
    this.#until(this.#model.programPosted(this.#readyNs, ppn, this.#number));
  }

  program(ppn: number): void {
    this.#observe('program', ppn);
    this.#until(this.#model.program(this.#readyNs, ppn, this.#number));
  }

  erase(ppn: number): void {
    this.#observe('erase', ppn);
    this.#model.erase(this.#readyNs, ppn, this.#number);
  }

  flush(): void {
    this.#observe('flush', 0);
    this.#then(this.#model.flush(this.#readyNs));
  }

  compute(bytes: number, flops: number): void {
    this.#observe('compute', 0, bytes, flops);
    this.#until(this.#model.compute(this.#readyNs, bytes, flops));
  }

  finishHeads(headCount: number): void {
    this.#observe('finishHeads', 0, headCount);
    this.#until(this.#model.finishHeads(this.#readyNs, headCount));
  }

  join(): void {
    this.#observe('join', 0);
    this.#readyNs = this.#endNs;
  }

  #attempts(ppn: number): number {
    return 1 + this.#cells.retryCount(ppn);
  }

  #observe(kind: TraceKind, ppn: number, bytes = 0, value = 0, attemptCount = 0, label = 0): void {
    const observer = this.#observer;
    if (observer === undefined) return;
    const told = this.#told;
    told.label = label;
    told.ppn = ppn;
    told.bytes = bytes;
    told.value = value;
    told.attemptCount = attemptCount;
    observer.operation(this.#number, kind, told);
  }

  #then(atNs: number): void {
    this.#readyNs = atNs;
    this.#until(atNs);
  }

  #until(atNs: number): void {
    if (atNs > this.#endNs) this.#endNs = atNs;
  }
}
