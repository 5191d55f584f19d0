import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { profileOf } from '../../daemon/profiles/profiles.ts';
import { formatDefaults, formatFolder } from '../../tools/cli/format-drive.ts';

test('format takes the geometry of its profile, but for what it is told', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'format-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  const capacities = { blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 ** 20, force: true };
  const plain = await formatFolder(folder, capacities);
  assert.equal(plain.profile, 'ideal');
  assert.equal(plain.channelCount, formatDefaults.channelCount);
  const { geometry } = profileOf('smartssd');
  const { pageSizeBytes, channelCount, diesPerChannel, planesPerDie, profile } = await formatFolder(folder, {
    ...capacities,
    profile: 'smartssd',
  });
  assert.deepEqual({ pageSizeBytes, channelCount, diesPerChannel, planesPerDie }, geometry);
  assert.equal(profile, 'smartssd');
  const told = await formatFolder(folder, { ...capacities, profile: 'smartssd', channelCount: 3, pageSizeBytes: 4096 });
  assert.deepEqual([told.channelCount, told.pageSizeBytes, told.planesPerDie], [3, 4096, 2]);
  await assert.rejects(formatFolder(folder, { ...capacities, profile: 'hdd' }), /profile hdd; allowed: ideal, /);
});
