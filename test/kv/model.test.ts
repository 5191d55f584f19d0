/** Random histories on the drive in memory, with killed processes and power cuts. */
import { test } from 'node:test';
import fc from 'fast-check';
import { openDrive, type OpenedMemory } from './fixture.ts';
import { newRemains, seededRandom, type DriveRemains, type Random } from './memory-drive.ts';
import { PAGE_SIZE_BYTES, playHistory, type Crash, type World } from './sequence-history.ts';

const SEED = 20_261;
const ARENA_BYTES = 2 * 1024 * 1024;

class MemoryWorld implements World {
  readonly #random: Random;
  opened: OpenedMemory;

  private constructor(opened: OpenedMemory, random: Random) {
    this.opened = opened;
    this.#random = random;
  }

  static async open(random: Random): Promise<MemoryWorld> {
    const remains = newRemains({ pageSizeBytes: PAGE_SIZE_BYTES, channelCount: 3, pageCount: 3000 });
    return new MemoryWorld(await openDrive(remains, { random, arenaBytes: ARENA_BYTES }), random);
  }

  get recordOperation(): number {
    return this.opened.drive.recordOperation;
  }

  failAfterPrograms(count: number): void {
    this.opened.drive.programsUntilFault = count;
  }

  async makeDurable(how: 'flush' | 'fua'): Promise<void> {
    if (how === 'fua') this.opened.drive.syncStaging();
    else this.opened.drive.checkpoint(this.#random() < 0.3);
  }

  async crash(): Promise<Crash> {
    const { drive: old, store } = this.opened;
    const isWhole = this.#random() < 0.4;
    const share = isWhole ? 1 : ([0, 0.3, 0.9, 1][Math.floor(this.#random() * 4)] as number);
    const recordCount = isWhole ? old.unsyncedRecordCount : Math.floor(this.#random() * (old.unsyncedRecordCount + 1));
    const what = `crash: kept ${recordCount} of ${old.unsyncedRecordCount} records, ${share} of pages`;
    const remains: DriveRemains = old.powerCut(recordCount, () => this.#random() < share);
    store.close();
    this.opened = await openDrive(remains, { random: this.#random, arenaBytes: ARENA_BYTES });
    const survivedOperation = Math.max(remains.checkpointOperation, remains.log.at(-1)?.operation ?? 0);
    return { what, survivedOperation, isWhole };
  }

  holderCount(): number {
    return this.opened.drive.holderCount;
  }

  async close(): Promise<void> {
    this.opened.store.close();
  }
}

test('histories of sequences agree with the model, across crashes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 2 ** 31 }), fc.integer({ min: 20, max: 160 }), async (seed, steps) => {
      const random = seededRandom(seed);
      await playHistory(await MemoryWorld.open(random), random, steps, String(seed));
    }),
    { seed: SEED, numRuns: Number(process.env['ATTNDRIVE_TEST_RUNS'] ?? 50) },
  );
});
