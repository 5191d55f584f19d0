/** What a power cut does to writes that were not synced. One way for all of a cut, drawn anew each time. */
import type { Random } from '../../daemon/base/random.ts';

const ways = [
  /** The machine stays on and only the process dies, or the disk was fast. */
  'all kept',
  /** Nothing reached the disk but what was synced. */
  'all lost',
  /** The disk wrote in order and was stopped somewhere. */
  'in order',
  /** The disk wrote in any order; sectors of one write stay together. */
  'whole writes',
  /** Every sector of every write by itself. */
  'sectors',
  /** Each write whole, lost, or torn. */
  'mixed',
] as const;

export type UnsyncedWay = (typeof ways)[number];

export class UnsyncedFates {
  readonly way: UnsyncedWay;
  readonly #random: Random;
  readonly #share: number;

  constructor(random: Random, way?: UnsyncedWay) {
    this.#random = random;
    this.way = way ?? ways[random.nextUint32() % ways.length]!;
    this.#share = random.nextUint32();
  }

  #chance(share: number): boolean {
    return this.#random.nextUint32() < share;
  }

  /** Something that happened or did not: a name in a folder. */
  whole(): boolean {
    if (this.way === 'all kept') return true;
    return this.way !== 'all lost' && this.#chance(2 ** 31);
  }

  /** For one area of the disk: tells of each sector of its unsynced writes, `writeCount` of them, whether it is kept. */
  ofWrites(writeCount: number): (write: number, sector: number) => boolean {
    const end = Math.floor((this.#share / 2 ** 32) * (writeCount + 1));
    const shares = new Map<number, number>();
    const shareOf = (write: number, draw: () => number): number => {
      let share = shares.get(write);
      if (share === undefined) shares.set(write, (share = draw()));
      return share;
    };
    switch (this.way) {
      case 'all kept':
        return () => true;
      case 'all lost':
        return () => false;
      case 'in order':
        return (write) => write < end;
      case 'whole writes':
        return (write) => shareOf(write, () => (this.#chance(this.#share) ? 1 : 0)) === 1;
      case 'sectors':
        return () => this.#chance(this.#share);
      case 'mixed': {
        const draws = [0, 2 ** 31, 2 ** 32];
        return (write) => this.#chance(shareOf(write, () => draws[this.#random.nextUint32() % draws.length]!));
      }
    }
  }
}
