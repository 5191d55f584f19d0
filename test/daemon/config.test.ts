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

const wrong: [Parameters<typeof resolve>[0], RegExp][] = [
  [{ tcp: 'localhost' }, /tcp "localhost"; allowed: HOST:PORT/],
  [{ http: '127.0.0.1:70000' }, /http "127.0.0.1:70000"/],
  [{ kernels: 'gpu' }, /kernels "gpu"; allowed: auto, native, wasm, reference/],
  [{ workers: -1 }, /workers -1; allowed: an integer from 0 to 256/],
  [{ workers: 1.5 }, /workers 1.5/],
  [{ logLevel: 'loud' }, /log level "loud"/],
  [{ cacheBytes: 1 }, /cache size 1;/],
];
for (const [options, message] of wrong) {
  test(`refused: ${JSON.stringify(options)}`, () => {
    assert.throws(() => resolve(options), message);
  });
}
