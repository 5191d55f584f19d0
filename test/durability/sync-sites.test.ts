/**
 * Every sync has a reason: with any one of them left out, some power cut breaks a promise. And there are no others than
 * these: a sync that is new to the code must find its place here.
 */
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { CutReplay, sitesOf } from './cut-check.ts';
import { byFile, loseAll } from './disk-state.ts';
import { cellsIos, RecordedRun } from './recorded-run.ts';
import { emptyFolder, temporaryFolder } from './temporary.ts';

const sites: Record<string, string> = {
  'run drive/media/cells.bin': 'bytes of pages',
  'run drive/media/oob.bin': 'out-of-band entries of pages',
  'run drive/media/blocks.bin': 'headers of superblocks',
  'run drive/staging/*.log': 'staging records',
  'run drive/staging/': 'the name of a new segment of the staging log',
  'run drive/meta/data.mdb': 'metadata transactions',
};

const parent = temporaryFolder();

async function assertMissed(run: RecordedRun, site: string): Promise<string> {
  const random = createSeededRandom(3);
  const replay = new CutReplay(run.disk.events, `${parent}/image`, random, site);
  for (const { at, promises } of run.moments) {
    for (const choice of [loseAll, byFile(random)]) {
      try {
        await replay.check({ at, choice, promises });
      } catch (error) {
        return `image ${replay.imageCount}: ${(error as Error).message.split('\n')[0]}`;
      }
    }
  }
  assert.fail(`nobody missed it in ${replay.imageCount} images`);
}

for (const { name, io, skip } of cellsIos) {
  describe(`cells ${name}`, { skip }, () => {
    let run: RecordedRun;
    before(async () => {
      run = new RecordedRun(emptyFolder(parent, `run-${name}`), 1, io);
      await run.make();
      await run.work(120);
    });

    test('the syncs of a run are those of the table', () => {
      const found = sitesOf(run.disk.events).filter((site) => site.startsWith('run '));
      assert.deepEqual(found.sort(), Object.keys(sites).sort());
    });

    for (const [site, what] of Object.entries(sites)) {
      test(`without the sync of ${what} (${site}) a promise is broken`, async (t) => {
        t.diagnostic(await assertMissed(run, site));
      });
    }
  });
}
