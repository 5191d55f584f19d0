import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../daemon/base/clock.ts';
import { Steps } from '../../daemon/base/steps.ts';

const step = (name: string, log: string[], failing?: 'start' | 'stop') => ({
  name,
  start: () => {
    if (failing === 'start') throw new Error(`${name} cannot start`);
    log.push(`+${name}`);
  },
  stop: () => {
    log.push(`-${name}`);
    if (failing === 'stop') throw new Error(`${name} cannot stop`);
  },
});

const run = (steps: ReturnType<typeof step>[]) => new Steps(steps, { clock: systemClock, listen: () => undefined });

test('steps stop in reverse', async () => {
  const log: string[] = [];
  const steps = run([step('a', log), step('b', log), step('c', log)]);
  await steps.start();
  await steps.stop();
  assert.deepEqual(log, ['+a', '+b', '+c', '-c', '-b', '-a']);
});

test('a failing step undoes the ones before it and only those', async () => {
  const log: string[] = [];
  const steps = run([step('a', log), step('b', log, 'start'), step('c', log)]);
  await assert.rejects(steps.start(), /b cannot start/);
  assert.deepEqual(log, ['+a', '-a']);
});

test('stopping goes on past a failure and reports it', async () => {
  const log: string[] = [];
  const steps = run([step('a', log), step('b', log, 'stop'), step('c', log)]);
  await steps.start();
  await assert.rejects(steps.stop(), /b cannot stop/);
  assert.deepEqual(log, ['+a', '+b', '+c', '-c', '-b', '-a']);
});
