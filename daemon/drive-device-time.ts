import type { Clock } from './base/clock.ts';
import type { Logger } from './base/logger.ts';
import type { DaemonConfig } from './config.ts';
import { identityOf } from './ftl/format.ts';
import type { FtlStores } from './ftl/ftl.ts';
import { Device } from './timing/device.ts';
import { timingOf } from './timing/replay.ts';
import { TraceFile } from './timing/trace-file.ts';

/** Device time of a running drive, as its options want it. */
export class DriveDeviceTime {
  readonly mode: DaemonConfig['timing'];
  readonly profile: string;
  /** Undefined: off. */
  readonly device: Device | undefined;
  readonly #trace: TraceFile | undefined;

  /** DriveError invalidField: the drive's profile has no times, or the recording can't be made. */
  constructor(
    { timing, record }: Pick<DaemonConfig, 'timing' | 'record'>,
    stores: FtlStores,
    modules: { readonly clock: Clock; readonly logger: Logger },
  ) {
    const { profile } = stores.chip;
    const { geometry: shape } = stores;
    this.mode = timing;
    this.profile = profile.name;
    if (timing === 'off') return;
    const times = timingOf(profile);
    if (record !== undefined) {
      const { serial } = identityOf(stores);
      const description = { shape, profile: profile.name, serial, startedAtMs: modules.clock.wallMs() };
      this.#trace = new TraceFile(record, description, modules);
    }
    this.device = new Device({ timing: times, shape }, { clock: modules.clock, observer: this.#trace?.writer });
  }

  /** Ends the recording. */
  close(): void {
    this.#trace?.close();
  }
}
