/** A format that the power cuts short: there is the old drive, whole, or none, which says so, or the new one. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { before, describe, test } from 'node:test';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { formatDrive, readSuperblock } from '../../daemon/ftl/format.ts';
import { checkDrive, CutReplay, sitesOf } from './cut-check.ts';
import { atRandom, byFile, type Choice, loseAll } from './disk-state.ts';
import { DrivePromises } from './drive-promises.ts';
import { RecordedDisk } from './recorded-disk.ts';
import { RecordedRun, smallDrive } from './recorded-run.ts';
import { emptyFolder, temporaryFolder } from './temporary.ts';

const parent = temporaryFolder();

/** Twice so many at each event. Opening a drive that was used takes longer than making one. */
const RANDOM_IMAGES = { nothing: 6, 'a drive': 1 };

interface RecordedFormat {
  readonly over: keyof typeof RANDOM_IMAGES;
  readonly disk: RecordedDisk;
  readonly begun: number;
  /** Of the old drive; undefined: there was none. */
  readonly old: { readonly uuid: string; readonly promises: DrivePromises } | undefined;
  readonly newUuid: string;
}

const uuidOf = (folder: string): string => Buffer.from(readSuperblock(folder).uuid).toString('hex');

/** In a folder that is not there, or (`format --force`) over a drive that was used. */
async function recordFormat(over: 'nothing' | 'a drive'): Promise<RecordedFormat> {
  const random = createSeededRandom(8);
  const root = emptyFolder(parent, 'root');
  let old: RecordedFormat['old'];
  let disk = new RecordedDisk(root);
  if (over === 'a drive') {
    const run = new RecordedRun(root, 5);
    await run.make();
    await run.work(25);
    old = { uuid: uuidOf(`${root}/drive`), promises: run.moments.at(-1)!.promises };
    disk = new RecordedDisk(root);
  }
  const begun = disk.events.length;
  disk.beginPhase(over === 'nothing' ? 'format' : 'format --force');
  const { uuid } = await formatDrive(`${root}/drive`, { ...smallDrive, force: old !== undefined }, random, disk);
  return { over, disk, begun, old, newUuid: uuid };
}

/** Throws unless the folder is the old drive, or the new one, or none that says why and may be formatted again. */
async function checkFolder(folder: string, { old, newUuid }: RecordedFormat, random: Random): Promise<void> {
  if (!existsSync(folder)) {
    assert.ok(old === undefined, 'the folder of a drive is there');
    return;
  }
  if (existsSync(`${folder}/superblock`)) {
    const uuid = uuidOf(folder);
    if (uuid === old?.uuid) return checkDrive(folder, old.promises, random);
    assert.equal(uuid, newUuid);
    return checkDrive(folder, new DrivePromises(smallDrive.blockCapacityBytes / 4096), random);
  }
  const isEmpty = readdirSync(folder).length === 0;
  assert.ok(isEmpty ? old === undefined : true, 'an old drive does not vanish');
  const message = isEmpty ? /is no drive: .*make one with/ : /is no drive: .*a format of it was cut short, run/;
  assert.throws(() => readSuperblock(folder), { code: 'mediaFormat', message });
  await formatDrive(folder, smallDrive, random);
}

async function checkCuts(format: RecordedFormat, suppressedSite?: string): Promise<number> {
  const random = createSeededRandom(2);
  const { events } = format.disk;
  const replay = new CutReplay(events, `${parent}/image`, random, suppressedSite);
  for (let at = format.begun; at <= events.length; at++) {
    const choices: Choice[] = [loseAll];
    for (let i = 0; i < RANDOM_IMAGES[format.over]; i++) choices.push(byFile(random), atRandom(random));
    for (const choice of choices) {
      const folder = `${replay.image(at, choice)}/drive`;
      await checkFolder(folder, format, random);
      if (at < events.length) continue;
      assert.ok(existsSync(`${folder}/superblock`), 'a format that has ended has made a drive');
      assert.equal(uuidOf(folder), format.newUuid);
    }
  }
  return replay.imageCount;
}

const sites = {
  nothing: {
    'format drive/superblock.new': 'the new superblock',
    'format drive/': 'that a format is under way',
    'format drive/media/cells.bin': 'a media file',
    'format drive/media/oob.bin': 'a media file',
    'format drive/media/blocks.bin': 'a media file',
    'format drive/media/': 'names of media files',
    'format drive/meta/data.mdb': 'the first metadata transaction',
    'format drive/meta/': 'the name of the metadata store',
    'format drive/ #2': 'names of all parts, before the superblock gets its own',
    'format drive/ #3': 'the name of the superblock',
    'format /': 'the name of the folder',
  },
  'a drive': {
    'format --force drive/superblock.new': 'the new superblock',
    'format --force drive/': 'that a format is under way',
    'format --force drive/ #2': 'that the old superblock is gone, before its parts are',
    'format --force drive/media/cells.bin': 'a media file',
    'format --force drive/media/oob.bin': 'a media file',
    'format --force drive/media/blocks.bin': 'a media file',
    'format --force drive/media/': 'names of media files',
    'format --force drive/meta/data.mdb': 'the first metadata transaction',
    'format --force drive/meta/': 'the name of the metadata store',
    'format --force drive/ #3': 'names of all parts, before the superblock gets its own',
    'format --force drive/ #4': 'the name of the superblock',
  },
} as const;

for (const over of ['nothing', 'a drive'] as const) {
  describe(`a format over ${over}`, () => {
    let format: RecordedFormat;
    before(async () => {
      format = await recordFormat(over);
    });

    test('may be cut short anywhere', async (t) => {
      t.diagnostic(`${await checkCuts(format)} images`);
      assert.deepEqual(sitesOf(format.disk.events.slice(format.begun)), Object.keys(sites[over]));
    });

    for (const [site, what] of Object.entries(sites[over])) {
      test(`needs its sync of ${what} (${site})`, async (t) => {
        await assert.rejects(checkCuts(format, site), (error: Error) => {
          t.diagnostic(error.message.split('\n')[0]!);
          return true;
        });
      });
    }
  });
}
