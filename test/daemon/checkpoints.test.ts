/** A whole drive in this process, over real files, with a clock that the test moves: who flushes when no host does. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { resolveConfig } from '../../daemon/config.ts';
import { ControlView } from '../../daemon/control-view.ts';
import { Drive } from '../../daemon/drive.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { ManualClock } from '../controller/rig.ts';
import { smallDrive } from '../durability/recorded-run.ts';
import { lbaContent } from '../ftl/open-drive.ts';

const INTERVAL_MS = 700;

const title = 'what no host flushes is durable after the checkpoint interval, or when the control plane says so';

test(title, { timeout: 60_000 }, async (t) => {
  const parent = mkdtempSync(`${tmpdir()}/attndrive-checkpoints-`);
  const folder = `${parent}/drive`;
  const random = createSeededRandom(1);
  await formatDrive(folder, smallDrive, random);
  const clock = new ManualClock();
  const options = { tcp: 'off', http: 'off', workers: 0, bufferBytes: 2 ** 24, runtimeFolder: `${parent}/run` };
  const config = resolveConfig({ ...options, checkpointIntervalMs: INTERVAL_MS }, {}, 0);
  const onFatal = (error: unknown): void => assert.fail(String(error));
  const drive = new Drive({ folder, config, version: '0.0.0' }, { clock, random, logger: silentLogger, onFatal });
  await drive.start();
  t.after(async () => {
    await drive.stop();
    rmSync(parent, { recursive: true });
  });
  const { blocks, durability, operations } = drive.room('ftl');
  const write = (version: number): Promise<void> => blocks.write(0, 1, lbaContent(0, version), false);
  for (let round = 1; round <= 3; round++) {
    await write(round);
    const before = durability.checkpointCount;
    clock.advance(INTERVAL_MS - 1);
    for (let i = 0; i < 20; i++) await turn();
    assert.equal(durability.checkpointCount, before, 'not yet');
    clock.advance(1);
    while (durability.checkpointCount === before) {
      t.signal.throwIfAborted();
      await turn();
    }
    assert.equal(durability.lastOperation, operations.last, 'all of it');
    // The next timer is set once the checkpoint is done.
    await turn();
  }
  const before = durability.checkpointCount;
  clock.advance(INTERVAL_MS);
  for (let i = 0; i < 20; i++) await turn();
  assert.equal(durability.checkpointCount, before, 'there was nothing to do');
  await write(4);
  await new ControlView(drive).flush();
  assert.equal(durability.lastOperation, operations.last);
});
