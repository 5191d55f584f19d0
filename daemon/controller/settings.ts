import type { Clock } from '../base/clock.ts';
import {
  type ControllerFeatures,
  defaultNumbers,
  defaultThresholds,
  type NumberFeature,
} from '../commands/contract.ts';

export interface SettingsModules {
  readonly clock: Clock;
  /** What the controller itself knows. */
  readonly controller: Pick<
    ControllerFeatures,
    'keepAliveTimeoutMs' | 'setKeepAliveTimeoutMs' | 'ioQueueCountMax' | 'hasIoQueues'
  >;
}

/** What Set Features changes of one controller. It ends with the controller, and a reset undoes it. */
export class ControllerSettings implements ControllerFeatures {
  readonly #clock: Clock;
  readonly #controller: SettingsModules['controller'];
  numbers: Record<NumberFeature, number> = { ...defaultNumbers };
  temperatureThresholds = { ...defaultThresholds };
  commandRetryDelays = false;
  #timestamp: { milliseconds: number; atNs: number; isSetByHost: boolean };

  constructor({ clock, controller }: SettingsModules) {
    this.#clock = clock;
    this.#controller = controller;
    this.#timestamp = { milliseconds: 0, atNs: clock.nowNs(), isSetByHost: false };
  }

  /** Everything but the keep alive timeout, which belongs to the association. */
  reset(): void {
    this.numbers = { ...defaultNumbers };
    this.temperatureThresholds = { ...defaultThresholds };
    this.commandRetryDelays = false;
    this.#timestamp = { milliseconds: 0, atNs: this.#clock.nowNs(), isSetByHost: false };
  }

  get writeCache(): boolean {
    return this.numbers.volatileWriteCache === 1;
  }

  get ioQueueCountMax(): number {
    return this.#controller.ioQueueCountMax;
  }

  keepAliveTimeoutMs(): number {
    return this.#controller.keepAliveTimeoutMs();
  }

  setKeepAliveTimeoutMs(timeoutMs: number): void {
    this.#controller.setKeepAliveTimeoutMs(timeoutMs);
  }

  hasIoQueues(): boolean {
    return this.#controller.hasIoQueues();
  }

  timestamp(): { milliseconds: number; isSetByHost: boolean } {
    const { milliseconds, atNs, isSetByHost } = this.#timestamp;
    return { milliseconds: Math.floor(milliseconds + (this.#clock.nowNs() - atNs) / 1e6), isSetByHost };
  }

  setTimestamp(milliseconds: number): void {
    this.#timestamp = { milliseconds, atNs: this.#clock.nowNs(), isSetByHost: true };
  }
}
