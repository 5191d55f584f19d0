/** Opens what a power cut has left and holds it against what was promised. */
import type { Random } from '../../daemon/base/random.ts';
import { openFolder } from '../../daemon/ftl/ftl.ts';
import { type Choice, DiskState } from './disk-state.ts';
import type { DrivePromises } from './drive-promises.ts';
import type { DiskEvent } from './recorded-disk.ts';
import { openWholeFtl } from './whole-ftl.ts';

export interface Cut {
  /** Events before it have happened. */
  readonly at: number;
  readonly choice: Choice;
  readonly promises: DrivePromises;
}

/** Opens the drive of an image and checks everything. Throws what is wrong. */
export async function checkDrive(folder: string, promises: DrivePromises, random: Random): Promise<void> {
  const drive = await openWholeFtl(openFolder(folder), random);
  try {
    await promises.copy().adopt(drive);
  } finally {
    await drive.abandon();
  }
}

/** Replays recorded events up to one cut after another. */
export class CutReplay {
  readonly #events: readonly DiskEvent[];
  readonly #state: DiskState;
  readonly #image: string;
  readonly #random: Random;
  #at = 0;
  imageCount = 0;

  /** `image`: a path to build images at. */
  constructor(events: readonly DiskEvent[], image: string, random: Random, suppressedSite?: string) {
    this.#events = events;
    this.#state = new DiskState({ suppressedSites: new Set(suppressedSite === undefined ? [] : [suppressedSite]) });
    this.#image = image;
    this.#random = random;
  }

  /** Folder of an image as the disk may be at this point. Points ascend. */
  image(at: number, choice: Choice): string {
    while (this.#at < at) this.#state.apply(this.#events[this.#at++]!);
    this.#state.build(this.#image, choice, this.#random);
    this.imageCount++;
    return this.#image;
  }

  async check({ at, choice, promises }: Cut): Promise<void> {
    await checkDrive(`${this.image(at, choice)}/drive`, promises, this.#random);
  }
}

/** All that was named as a place of a sync, in the order of its first call. */
export function sitesOf(events: readonly DiskEvent[]): string[] {
  const sites = new Set<string>();
  for (const event of events) if (event.kind === 'syncBegin' || event.kind === 'commitBegin') sites.add(event.site);
  return [...sites];
}
