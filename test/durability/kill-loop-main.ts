/** `npm run kill-loop -- --kills 200 [--seed N] [--keep]`: kills a real daemon at work, while it starts, while it stops. */
import { parseArgs } from 'node:util';
import { killCount, type KillCounts, KillLoop, killKinds } from './kill-loop.ts';

const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '200' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    keep: { type: 'boolean', default: false },
  },
});
const kills = Number(values.kills);
const seed = Number(values.seed);
if (!(Number.isInteger(kills) && kills > 0 && Number.isInteger(seed) && seed >= 0)) {
  process.stderr.write('kill-loop: --kills and --seed are whole numbers, --kills above 0\n');
  process.exit(2);
}

const summary = (counts: KillCounts): string => {
  const kinds = killKinds.map((kind) => `${counts.kills[kind]} ${kind}`).join(', ');
  return `${killCount(counts)} of ${kills} kills (${kinds}), ${counts.cleanStops} stops, ${counts.commands} commands`;
};

const isTerminal = process.stdout.isTTY === true;
const loop = new KillLoop({
  kills,
  seed,
  onProgress: (counts) => void (isTerminal && process.stdout.write(`\r\u001b[K${summary(counts)}`)),
});
process.stdout.write(`kill-loop: seed ${seed}\n`);
const beginMs = performance.now();
try {
  await loop.run();
  const { counts } = loop;
  const start = counts.startMs.toSorted((a, b) => a - b)[Math.floor(counts.startMs.length / 2)] ?? 0;
  process.stdout.write(`${isTerminal ? '\n' : ''}${summary(counts)}\n`);
  process.stdout.write(
    `${counts.flushes} flushes; ${counts.verifications} clients found all that they were promised\n`,
  );
  process.stdout.write(`start after a kill: median ${start.toFixed(0)} ms, to the first command\n`);
  process.stdout.write(`took ${((performance.now() - beginMs) / 1000).toFixed(0)} s; nothing was lost\n`);
  await loop.remove();
} catch (error) {
  process.stdout.write(`\nkill-loop: FAILED after ${summary(loop.counts)}\n${String((error as Error).stack)}\n`);
  process.stdout.write(`again: npm run kill-loop -- --kills ${kills} --seed ${seed}\n`);
  if (values.keep) process.stdout.write(`the drive is left in ${loop.folder}\n`);
  else await loop.remove();
  process.exit(1);
}
