import { type AsyncEventName, asyncEvents, criticalWarningBits } from '../../spec/async-events.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { criticalWarning } from '../commands/admin/health.ts';
import type { DriveStatus, Limits } from '../commands/contract.ts';
import type { Controller } from './controller.ts';

export interface HealthWatchModules {
  readonly clock: Clock;
  readonly status: DriveStatus;
  readonly controllers: () => Iterable<Controller>;
}

/** The event that tells of each warning. Those of read only media and of the backup are said to be of reliability. */
const eventOf = {
  spare: 'spare',
  temperature: 'temperature',
  reliability: 'reliability',
  readOnly: 'reliability',
  backup: 'reliability',
} as const satisfies Record<keyof typeof criticalWarningBits, AsyncEventName>;

const warningBits = Object.entries(criticalWarningBits) as [keyof typeof eventOf, { shift: number }][];
const WARNINGS_MASK = warningBits.reduce((mask, [, { shift }]) => mask | (1 << shift), 0);

/** Looks at the drive's health now and then, as long as a controller wants to be told when it gets worse. */
export class HealthWatch {
  readonly #intervalMs: number;
  readonly #modules: HealthWatchModules;
  #timer: Timer | undefined;

  constructor(options: { limits: Limits }, modules: HealthWatchModules) {
    this.#intervalMs = options.limits.healthCheckIntervalMs;
    this.#modules = modules;
  }

  /** A controller came, went, or wants other events than before. */
  update(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    let isWanted = false;
    for (const controller of this.#modules.controllers()) isWanted = this.#look(controller) || isWanted;
    if (isWanted) this.#timer = this.#modules.clock.setTimer(this.#intervalMs, () => this.update());
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  /** Whether the controller wants to hear of any warning. */
  #look(controller: Controller): boolean {
    if (controller.kind.type !== 'io') return false;
    const wanted = controller.features.numbers.asyncEventConfiguration & WARNINGS_MASK;
    if (wanted === 0) return false;
    const warnings = criticalWarning(this.#modules.status.health(), controller.features);
    const fresh = warnings & wanted & ~controller.reportedWarnings;
    controller.reportedWarnings = warnings & wanted;
    for (const [name, { shift }] of warningBits) {
      if ((fresh & (1 << shift)) !== 0) controller.events.report(eventOf[name]);
    }
    return true;
  }
}

/** Whether a host's configuration (feature 0Bh) has an event switched on. */
export function isConfigured(configuration: number, name: AsyncEventName): boolean {
  // Three warnings are told by one event: any of them switches it on.
  const bits =
    name === 'reliability'
      ? warningBits.filter(([warning]) => eventOf[warning] === 'reliability').map(([, { shift }]) => shift)
      : [asyncEvents[name].configurationBit];
  return bits.some((bit) => ((configuration >>> bit) & 1) === 1);
}
