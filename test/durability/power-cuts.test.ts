/**
 * Real files and real LMDB: a run is recorded, and what a power cut may leave of it, at any write or sync, is built as a
 * folder, opened and checked. `ATTNDRIVE_SEEDS` runs and `ATTNDRIVE_CUTS` cuts of each; `ATTNDRIVE_SEED` the first.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import type { CellsIo } from '../../daemon/nand/media-file.ts';
import { checkDrive, CutReplay } from './cut-check.ts';
import { atRandom, byFile, type Choice, keepAll, loseAll } from './disk-state.ts';
import { RecordedDisk } from './recorded-disk.ts';
import { cellsIos, openRecorded, RecordedRun } from './recorded-run.ts';
import { emptyFolder, temporaryFolder } from './temporary.ts';
import { openWholeFtl } from './whole-ftl.ts';

const FIRST_SEED = Number(process.env['ATTNDRIVE_SEED'] ?? 1);
const SEEDS = Number(process.env['ATTNDRIVE_SEEDS'] ?? 1);
const CUTS = Number(process.env['ATTNDRIVE_CUTS'] ?? 400);
const RUN_STEPS = 250;
const parent = temporaryFolder();

const anyChoice = (random: Random): Choice => {
  const choices = [loseAll, keepAll, byFile(random), atRandom(random), atRandom(random)];
  return choices[random.nextUint32() % choices.length]!;
};

/** Points in time, ascending, with what was promised then: after everything promised, and anywhere between. */
function* cutsOf(run: RecordedRun, count: number, random: Random) {
  const { moments } = run;
  const eventCount = run.disk.events.length;
  const points = Array.from({ length: count }, () => random.nextUint32() % eventCount).sort((a, b) => a - b);
  for (const point of points) {
    const moment = moments.findLast(({ at }) => at <= point);
    // Half of the cuts come right after something was promised.
    if (moment !== undefined) yield { at: point % 2 === 0 ? moment.at : point, promises: moment.promises };
  }
}

async function cutRun(seed: number, io: CellsIo): Promise<void> {
  const random = createSeededRandom(seed);
  const run = new RecordedRun(emptyFolder(parent, 'run'), seed, io);
  await run.make();
  await run.work(RUN_STEPS);
  let replay = new CutReplay(run.disk.events, `${parent}/image`, random);
  let last = 0;
  for (const { at, promises } of cutsOf(run, CUTS / cellsIos.length, random)) {
    if (at < last) replay = new CutReplay(run.disk.events, `${parent}/image`, random);
    last = at;
    const choice = anyChoice(random);
    try {
      await replay.check({ at, choice, promises });
    } catch (error) {
      (error as Error).message += `\nseed ${seed}, cut at event ${at} of ${run.disk.events.length}`;
      throw error;
    }
  }
}

for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS; seed++) {
  for (const { name, io, skip } of cellsIos) {
    test(`whatever a power cut leaves of run ${seed}, ${name}, keeps every promise`, { timeout: 3_600_000, skip }, () =>
      cutRun(seed, io),
    );
  }
}

test('a power cut while it recovers, and then another, lose nothing either', { timeout: 3_600_000 }, async () => {
  const random = createSeededRandom(FIRST_SEED);
  const run = new RecordedRun(emptyFolder(parent, 'run'), FIRST_SEED + 1000);
  await run.make();
  await run.work(RUN_STEPS);
  const replay = new CutReplay(run.disk.events, `${parent}/image`, random);
  let cutCount = 0;
  let last = 0;
  for (const { at, promises } of cutsOf(run, Math.ceil(CUTS / 25), random)) {
    if (at < last) continue;
    last = at;
    const root = replay.image(at, anyChoice(random));
    const disk = new RecordedDisk(root);
    const drive = await openWholeFtl(openRecorded(disk, `${root}/drive`), random);
    const opened = disk.events.length;
    const found = promises.copy();
    await found.adopt(drive);
    await drive.abandon();
    const again = new CutReplay(disk.events, `${parent}/again`, random);
    const begun = disk.events.findIndex((event) => event.kind === 'syncBegin' && event.site !== 'before');
    for (let point = begun; point < opened; point += 1 + (random.nextUint32() % 6)) {
      await checkDrive(`${again.image(point, anyChoice(random))}/drive`, promises, random);
      cutCount++;
    }
    // What hosts have seen since it opened is there for good.
    await checkDrive(`${again.image(opened, loseAll)}/drive`, found, random);
  }
  assert.ok(cutCount > CUTS / 25, `${cutCount} cuts during recoveries`);
});
