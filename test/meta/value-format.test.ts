/** What stands in LMDB's file is hostile until checked: keys too. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriveError } from '../../daemon/base/errors.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { keyOf } from '../../daemon/meta/value-format.ts';

test('any bytes are a key of ours or damage, never anything worse', () => {
  const random = createSeededRandom(1);
  const counts = { keys: 0, damaged: 0 };
  for (let i = 0; i < 20_000; i++) {
    const bytes = Buffer.from(random.bytes(1 + (i % 24)));
    // A number first, as in every key.
    if (i % 2 === 0) bytes[0] = 0x10 + (bytes[0]! & 15);
    try {
      keyOf('data.mdb', bytes);
      counts.keys++;
    } catch (error) {
      if (!(error instanceof DriveError) || error.code !== 'mediaFormat') throw error;
      counts.damaged++;
    }
  }
  assert.ok(counts.damaged > 1000, JSON.stringify(counts));
});
