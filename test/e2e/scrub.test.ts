/** The scrub of a running drive, by the command line and by itself. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { AdminClient, type DriveClient } from '../../client/index.ts';
import type { ScrubStatus } from '../../spec/admin-api.ts';
import { parseExposition } from '../admin/exposition.ts';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { connectTo, runningDrive, Witness } from './served-drive.ts';

const daemon = new DaemonProcess();
let client: DriveClient;
let admin: AdminClient;

async function start(...args: string[]): Promise<void> {
  await daemon.start(args);
  client = await connectTo(daemon);
  admin = new AdminClient(`unix:${runningDrive(daemon).adminSocket}`);
}

async function stop(): Promise<void> {
  await client.close();
  await admin.close();
  await daemon.end('SIGTERM');
}

before(async () => {
  await start('--allow-faults', '--scrub-interval', 'off');
  await Witness.write(client);
});
after(() => daemon.remove());

const scrub = (...args: string[]) => attndrive(['scrub', '--drive', daemon.folder, ...args]);
const metric = async (name: string): Promise<number> =>
  parseExposition(await admin.metrics())
    .filter((family) => family.name === name)
    .flatMap(({ samples }) => samples)
    .reduce((sum, { value }) => sum + value, 0);

test('a scrub on request finds bits that flipped in pages which were seen right, and says what they held', async () => {
  const sound = scrub();
  assert.equal(sound.status, 0, sound.stderr);
  assert.match(sound.stdout, /^interval +: off: only on request$/m);
  assert.match(sound.stdout, /^last pass +: \d+ pages checked, 0 renewed, 0 bad, in /m);
  assert.match(sound.stdout, /no bad page is known\n$/);

  const { id, pages } = await admin.addFault({ kind: 'bit-errors', where: { lba: 5 } });
  const found = scrub('--json');
  assert.equal(found.status, 1, found.stderr);
  const { lastPass, passCount, totals, badPages, badPageCount } = JSON.parse(found.stdout) as ScrubStatus;
  const checked = totals.pagesChecked / 2;
  assert.deepEqual([lastPass?.pagesChecked, lastPass?.pagesBad, passCount, badPageCount], [checked, 1, 2, 1]);
  assert.deepEqual(
    badPages.map(({ page }) => page),
    [pages[0]?.page],
  );
  assert.match(badPages[0]!.detail, /it held LBA 5/);
  const status = scrub('--status');
  assert.equal(status.status, 1);
  assert.match(status.stdout, /^page \d+ .*it held LBA 5.*\n\ninterval/);
  assert.match(status.stdout, /1 page in use cannot be read\n$/);
  assert.equal(await metric('attndrive_flash_pages_bad'), 1);
  assert.equal(await metric('attndrive_scrub_passes_total'), 2);
  assert.equal(daemon.said.match(/a flash page cannot be read/g)?.length, 1);

  await client.block.write(5, new Uint8Array(4096));
  await admin.flush();
  const gone = JSON.parse(scrub('--json').stdout) as ScrubStatus;
  assert.deepEqual([gone.badPageCount, gone.lastPass?.pagesBad], [0, 0]);
  await admin.removeFault(id);
});

test('with an interval it goes round by itself', async () => {
  await stop();
  await start('--scrub-interval', '1s');
  assert.equal((await admin.drive()).configuration['scrubIntervalSeconds'], '1');
  while ((await admin.scrub()).passCount < 2) await new Promise((resolve) => setTimeout(resolve, 50));
  const { totals, state, intervalSeconds } = await admin.scrub();
  assert.ok(totals.pagesChecked > 0 && state !== 'requested');
  assert.equal(intervalSeconds, 1);
  await stop();
});

test('a time that is none is refused', () => {
  const { status, stderr } = attndrive(['start', daemon.folder, '--scrub-interval', 'weekly']);
  assert.equal(status, 2);
  assert.match(stderr, /A time is 1s to 366d/);
});
