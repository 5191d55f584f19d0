/** LMDB has no checksums: what a changed bit of its file may do is ours to find before it does it. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { LmdbStore } from '../../daemon/meta/store.ts';

/** Bits flipped; more with ATTNDRIVE_FLIPS. */
const FLIPS = Number(process.env['ATTNDRIVE_FLIPS'] ?? 400);
const SEED = Number(process.env['ATTNDRIVE_SEED'] ?? 1);

test('a bit that flips in the file is found, or changes nothing; it never ends the process', async () => {
  // Nothing here is about disks.
  const folder = mkdtempSync(`${existsSync('/dev/shm') ? '/dev/shm' : tmpdir()}/attndrive-flips-`);
  try {
    const store = LmdbStore.create(folder);
    for (let round = 0; round < 8; round++) {
      const segments = Array.from({ length: 48 }, (_, i) => ({
        kind: 'put' as const,
        namespace: [2, 3, 17, 18][i % 4]!,
        key: [i * (round % 3), 'layer', round % 5],
        value: new Uint8Array([100, 1000, 16_384][i % 7 === 0 ? 2 : i % 2]!).fill(i),
      }));
      await store.commit(segments);
    }
    await store.close();
    const script = fileURLToPath(new URL('./bit-flipper.js', import.meta.url));
    const args = [script, folder, String(SEED), String(FLIPS)];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    const exit = once(child, 'exit');
    const lines: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) lines.push(line);
    assert.deepEqual(await exit, [0, null], `after ${lines.at(-1)}`);
    const counts = { same: 0, found: 0 };
    for (const line of lines) {
      const [at, outcome] = line.split(' ');
      assert.ok(outcome === 'same' || outcome === 'mediaFormat', `byte ${at}: ${line}`);
      counts[outcome === 'same' ? 'same' : 'found']++;
    }
    assert.equal(lines.length, FLIPS);
    assert.ok(counts.found > FLIPS / 10, `${counts.found} were found`);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
