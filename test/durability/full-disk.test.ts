/** A disk that fills up under a drive: it says so, goes on reading, and goes on writing once there is room. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { runWithMounts, whyNoMounts } from './own-mounts.ts';
import { emptyFolder, temporaryFolder } from './temporary.ts';

const parent = temporaryFolder();
const skip = whyNoMounts() ?? false;

describe('a disk that fills up under', { skip }, () => {
  for (const part of ['.', 'media', 'staging', 'meta']) {
    test(part === '.' ? 'the whole drive' : `its ${part}`, (t) => {
      const { status, stdout, output } = runWithMounts('./full-disk-run.js', [emptyFolder(parent, 'work'), part]);
      t.diagnostic(stdout);
      assert.equal(status, 0, output);
    });
  }
});
