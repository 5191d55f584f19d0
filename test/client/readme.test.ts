/** Runs the programs of client/README.md against a daemon, each in a process of its own; compares what they print. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { DaemonProcess } from '../tools/daemon-process.ts';

// Compiled tests run from .build/test/client; the programs must lie in the package to import it by name.
const page = fileURLToPath(new URL('../../../client/README.md', import.meta.url));
const expected = [
  'attended to 100 tokens: 256 values\n',
  [0, 1, 2, 3, 4]
    .flatMap((position) =>
      [0, 1].map((layer) => `layer ${layer}: ${position + 1} tokens, output ${(position / 2).toFixed(3)}\n`),
    )
    .join('') + 'lengths 5,5\n',
  'layer 0: 256 tokens\nlayer 1: 256 tokens\n',
  'difference below 1e-5: true\n',
  'same: true\n',
  'state: ready\nmetrics: true\n',
];

test('the programs of the README print what they should', async (t) => {
  const programs = [...readFileSync(page, 'utf8').matchAll(/^```js\n([^]*?)^```$/gm)].map((match) => match[1] ?? '');
  assert.equal(programs.length, expected.length);
  const daemon = new DaemonProcess();
  t.after(() => daemon.remove());
  await daemon.start();
  const { DRIVE: _, ...environment } = process.env;
  for (const [index, program] of programs.entries()) {
    const file = fileURLToPath(new URL(`./readme-${process.pid}-${index}.mjs`, import.meta.url));
    writeFileSync(file, program);
    t.after(() => rmSync(file));
    const env = { ...environment, RUNTIME_DIRECTORY: daemon.runtimeFolder };
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], { env, timeout: 60_000 });
    assert.equal(stdout, expected[index], `program ${index + 1}: ${stderr}`);
    assert.equal(stderr, '');
  }
});
