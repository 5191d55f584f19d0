import type { DeviceModel, FirmwareWork } from './device-model.ts';

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
  /** Into the controller. `attemptCount`: reads with shifted thresholds count too. */
  read(ppn: number, bytes: number, attemptCount?: number): void;
  /** And on to the host, as the page comes. */
  readToHost(ppn: number, bytes: number, attemptCount?: number): void;
  /** And on to a compute unit, which does `flops` on it. */
  readToCompute(ppn: number, bytes: number, flops: number, attemptCount?: number): void;
  /** A page of the host's: the job ends no earlier than when the write buffer has it. */
  programPosted(ppn: number): void;
  /** A page of the drive's own. */
  program(ppn: number): void;
  /** The block of one unit that the page is in. */
  erase(ppn: number): void;
  /** What was posted so far is safe. */
  flush(): void;
  /** Rows that are in the drive's memory. */
  compute(bytes: number, flops: number): void;
  /** What attention does once for each head, when all of its keys and values were there. */
  finishHeads(headCount: number): void;
  /** What follows begins when everything so far has ended. */
  join(): void;
}

/** A job on a device. Used again and again, so that an operation costs no garbage. */
export class TimedJob implements DeviceJob {
  readonly #model: DeviceModel;
  #number = 0;
  #readyNs = 0;
  #endNs = 0;
  arrivalNs = 0;

  constructor(model: DeviceModel) {
    this.#model = model;
  }

  /** From the arrival to the end of what was booked so far, and until the host sees it. */
  get latencyNs(): number {
    return this.#endNs - this.arrivalNs + this.#model.profile.link.completionNs;
  }

  begin(arrivalNs: number): void {
    this.#number = this.#model.arrive(arrivalNs);
    this.arrivalNs = arrivalNs;
    this.#readyNs = arrivalNs;
    this.#endNs = arrivalNs;
  }

  firmware(work: FirmwareWork, bytes: number): void {
    this.#then(this.#readyNs + this.#model.firmwareNs(work, bytes));
  }

  hostToDevice(bytes: number): void {
    this.#then(this.#model.hostToDevice(this.#readyNs, bytes));
  }

  deviceToHost(bytes: number): void {
    this.#until(this.#model.deviceToHost(this.#readyNs, bytes));
  }

  read(ppn: number, bytes: number, attemptCount = 1): void {
    this.#until(this.#model.read(this.#readyNs, ppn, bytes, attemptCount, this.#number));
  }

  readToHost(ppn: number, bytes: number, attemptCount = 1): void {
    this.#until(this.#model.readToHost(this.#readyNs, ppn, bytes, attemptCount, this.#number));
  }

  readToCompute(ppn: number, bytes: number, flops: number, attemptCount = 1): void {
    const model = this.#model;
    this.#until(model.compute(model.read(this.#readyNs, ppn, bytes, attemptCount, this.#number), bytes, flops));
  }

  programPosted(ppn: number): void {
    this.#until(this.#model.programPosted(this.#readyNs, ppn, this.#number));
  }

  program(ppn: number): void {
    this.#until(this.#model.program(this.#readyNs, ppn, this.#number));
  }

  erase(ppn: number): void {
    this.#until(this.#model.erase(this.#readyNs, ppn, this.#number));
  }

  flush(): void {
    this.#then(this.#model.flush(this.#readyNs));
  }

  compute(bytes: number, flops: number): void {
    this.#until(this.#model.compute(this.#readyNs, bytes, flops));
  }

  finishHeads(headCount: number): void {
    this.#until(this.#model.finishHeads(this.#readyNs, headCount));
  }

  join(): void {
    this.#readyNs = this.#endNs;
  }

  #then(atNs: number): void {
    this.#readyNs = atNs;
    this.#until(atNs);
  }

  #until(atNs: number): void {
    if (atNs > this.#endNs) this.#endNs = atNs;
  }
}
