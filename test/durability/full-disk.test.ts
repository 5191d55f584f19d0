/** A disk that fills up under a drive: it says so, goes on reading, and goes on writing once there is room. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { runWithMounts, whyNoMounts } from './own-mounts.ts';
import { cellsIos } from './recorded-run.ts';
import { emptyFolder, temporaryFolder } from './temporary.ts';

const parent = temporaryFolder();
const skip = whyNoMounts() ?? false;

describe('a disk that fills up under', { skip }, () => {
  for (const part of ['.', 'media', 'staging', 'meta']) {
    for (const { name, skip: skipIo } of cellsIos) {
      test(`${part === '.' ? 'the whole drive' : `its ${part}`}, ${name}`, { skip: skipIo }, (t) => {
        const args = [emptyFolder(parent, 'work'), part, name];
        const { status, stdout, output } = runWithMounts('./full-disk-run.js', args);
        t.diagnostic(stdout);
        assert.equal(status, 0, output);
      });
    }
  }
});
