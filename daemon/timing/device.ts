import type { Clock } from '../base/clock.ts';
import type { TimingProfile } from '../profiles/timing-profile.ts';
import { type CellReads, type DeviceTime, type JobObserver, type ReusableJob, TimedJob } from './device-job.ts';
import { DeviceModel, type DeviceUsage } from './device-model.ts';
import type { DeviceShape } from './device-shape.ts';

/** A drive in device time: one model, and jobs on it for whoever has something to do. */
export class Device implements DeviceTime {
  readonly #model: DeviceModel;
  readonly #clock: Clock;
  readonly #observer: JobObserver | undefined;
  #cells: CellReads | undefined;

  constructor(
    options: { readonly timing: TimingProfile; readonly shape: DeviceShape },
    modules: { readonly clock: Clock; readonly observer?: JobObserver | undefined },
  ) {
    this.#model = new DeviceModel(options.timing, options.shape);
    this.#clock = modules.clock;
    this.#observer = modules.observer;
  }

  readFrom(cells: CellReads): void {
    this.#cells = cells;
  }

  createJob(): ReusableJob {
    const cells: CellReads = { retryCount: (ppn) => this.#cells?.retryCount(ppn) ?? 0 };
    return new TimedJob(this.#model, { observer: this.#observer, cells });
  }

  backgroundArrivalNs(isForHost: boolean): number {
    const { latestArrivalNs } = this.#model;
    return isForHost ? latestArrivalNs : Math.max(latestArrivalNs, Math.floor(this.#clock.nowNs()));
  }

  usage(): DeviceUsage {
    return this.#model.usage();
  }
}
