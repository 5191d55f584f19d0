import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveConfig } from '../../daemon/config.ts';

const resolve = (options: Parameters<typeof resolveConfig>[0], environment = {}) =>
  resolveConfig(options, environment, 1000);

test('defaults listen on loopback only', () => {
  const config = resolve({});
  assert.deepEqual(config.tcp, { host: '127.0.0.1', port: 4420 });
  assert.deepEqual(config.http, { host: '127.0.0.1', port: 4480 });
  assert.equal(config.runtimeFolder, '/dev/shm/attndrive-1000');
});

test('runtime folder follows systemd, then the session', () => {
  const both = { RUNTIME_DIRECTORY: '/run/attndrive', XDG_RUNTIME_DIR: '/run/user/1000' };
  assert.equal(resolve({}, both).runtimeFolder, '/run/attndrive');
  assert.equal(resolve({}, { XDG_RUNTIME_DIR: '/run/user/1000' }).runtimeFolder, '/run/user/1000/attndrive');
});

test('addresses', () => {
  assert.deepEqual(resolve({ tcp: '[::1]:0' }).tcp, { host: '::1', port: 0 });
  assert.deepEqual(resolve({ tcp: ':81' }).tcp, { host: '127.0.0.1', port: 81 });
  assert.equal(resolve({ tcp: 'off' }).tcp, undefined);
});

test('garbage collection: what is left out follows from what is given', () => {
  const { gcPolicy, gcStart, gcStop } = resolve({});
  assert.deepEqual({ gcPolicy, gcStart, gcStop }, { gcPolicy: 'greedy', gcStart: 2, gcStop: 4 });
  assert.equal(resolve({ gcStart: 9 }).gcStop, 9);
  assert.equal(resolve({ gcPolicy: 'fifo', gcWindow: 30 }).gcWindow, 30);
  assert.equal(resolve({ gcPolicy: 'd-choices', gcChoices: 3 }).gcChoices, 3);
});

test('the scrub takes a week, unless another time is given, or none', () => {
  assert.equal(resolve({}).scrubIntervalSeconds, 604_800);
  assert.equal(resolve({ scrubIntervalSeconds: 0 }).scrubIntervalSeconds, 0);
});

const wrong: [Parameters<typeof resolve>[0], RegExp][] = [
  [{ tcp: 'localhost' }, /tcp "localhost"; allowed: HOST:PORT/],
  [{ http: '127.0.0.1:70000' }, /http "127.0.0.1:70000"/],
  [{ kernels: 'gpu' }, /kernels "gpu"; allowed: auto, native, wasm, reference/],
  [{ kernelPrecision: 'half' }, /kernel precision "half"; allowed: exact, close, fast/],
  [{ workers: -1 }, /workers -1; allowed: an integer from 0 to 256/],
  [{ workers: 1.5 }, /workers 1.5/],
  [{ logLevel: 'loud' }, /log level "loud"/],
  [{ gcPolicy: 'lazy' }, /garbage collection policy "lazy"; allowed: greedy, cost-benefit, d-choices, fifo/],
  [{ gcChoices: 3 }, /garbage collection choices 3; allowed: with policy d-choices only, not greedy/],
  [{ gcPolicy: 'd-choices', gcWindow: 3 }, /garbage collection window 3; allowed: with policy fifo only/],
  [{ busyPollUs: 10_001 }, /busy poll \(us\) 10001; allowed: an integer from 0 to 10000/],
  [{ gcPolicy: 'fifo', gcWindow: 0 }, /garbage collection window 0; allowed: an integer from 1 to 65536/],
  [{ gcStart: 0 }, /garbage collection start 0; allowed: an integer from 1 to 1024/],
  [{ gcStart: 5, gcStop: 4 }, /garbage collection stop 4; allowed: an integer from 5 to 1024/],
  [{ scrubIntervalSeconds: -1 }, /scrub interval \(s\) -1; allowed: an integer from 0 to 31622400/],
  [{ cacheBytes: 1 }, /cache size 1;/],
  [{ io: 'fast' }, /I\/O "fast"; allowed: mapped, direct/],
  [{ io: 'direct', cacheBytes: 2 ** 20 }, /cache size 1048576; allowed: an integer from 67108864 to/],
  [{ io: 'direct', kernels: 'wasm' }, /kernels "wasm"; allowed: auto or native, with direct I\/O/],
  [{ io: 'direct', workers: 0 }, /workers 0; allowed: at least 1, with direct I\/O/],
];
for (const [options, message] of wrong) {
  test(`refused: ${JSON.stringify(options)}`, () => {
    assert.throws(() => resolve(options), message);
  });
}
