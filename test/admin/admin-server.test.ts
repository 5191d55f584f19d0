import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { pack, unpack } from 'msgpackr';
import { Client } from 'undici';
import { AdminServer } from '../../daemon/admin/admin-server.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { FakeDriveView, sequenceOf } from './fake-drive-view.ts';

let folder: string;
let view: FakeDriveView;
let server: AdminServer;
let unix: Client;
let tcp: Client;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'attndrive-admin-'));
  view = new FakeDriveView();
  const socketPath = join(folder, 'admin.sock');
  server = new AdminServer(
    { socketPath, http: { host: '127.0.0.1', port: 0 } },
    { view, clock: systemClock, logger: silentLogger },
  );
  await server.start();
  unix = new Client('http://drive', { socketPath });
  tcp = new Client(`http://127.0.0.1:${server.httpAddress?.port}`);
});

afterEach(async () => {
  await Promise.all([unix.close(), tcp.close()]);
  await server.close();
  await rm(folder, { recursive: true });
});

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

async function ask(method: 'GET' | 'POST' | 'DELETE' | 'PUT', path: string, options: object = {}): Promise<Answer> {
  const { statusCode, body } = await unix.request({ method, path, ...options });
  return { status: statusCode, body: (await body.json()) as Record<string, unknown> };
}

test('both listeners serve the same routes, and the socket is private', async () => {
  const { statusCode, body } = await tcp.request({ method: 'GET', path: '/drive' });
  assert.equal(statusCode, 200);
  assert.deepEqual(await body.json(), (await ask('GET', '/drive')).body);
  assert.equal((await stat(join(folder, 'admin.sock'))).mode & 0o777, 0o600);
});

test('health is 503 until the drive is ready', async () => {
  assert.deepEqual(await ask('GET', '/health'), {
    status: 200,
    body: { state: 'ready', live: true, ready: true, readOnly: false, detail: '' },
  });
  assert.equal((await ask('GET', '/health/')).status, 200);
  view.ready = false;
  assert.equal((await ask('GET', '/health')).status, 503);
});

test('sequences are listed in pages that follow each other', async () => {
  const first = await ask('GET', '/sequences?limit=2');
  assert.deepEqual(
    (first.body['items'] as { id: string }[]).map(({ id }) => id),
    ['3', '7'],
  );
  assert.equal(first.body['next'], '7');
  const second = await ask('GET', '/sequences?limit=2&after=7');
  assert.deepEqual(
    (second.body['items'] as { id: string }[]).map(({ id }) => id),
    ['18446744073709551615'],
  );
  assert.equal('next' in second.body, false);
});

test('one sequence comes with its block table; reclaiming it removes it', async () => {
  assert.deepEqual(await ask('GET', '/sequences/7'), { status: 200, body: { ...sequenceOf(7n) } });
  assert.deepEqual(await ask('DELETE', '/sequences/7'), { status: 200, body: { reclaimed: '7' } });
  const gone = await ask('DELETE', '/sequences/7');
  const allowed = 'ids that GET /sequences lists';
  assert.deepEqual(gone, { status: 404, body: { code: 'unknownSequence', message: 'unknown sequence: 7', allowed } });
  const beyond = await ask('GET', '/sequences/18446744073709551616');
  assert.equal(beyond.body['allowed'], '0 to 18446744073709551615');
  assert.equal(beyond.body['message'], 'invalid field in command: sequence id 18446744073709551616');
});

test('superblocks are filtered by state and paged', async () => {
  const { body } = await ask('GET', '/blocks?state=full&limit=2');
  assert.deepEqual(
    (body['items'] as { index: number }[]).map(({ index }) => index),
    [4, 5],
  );
  assert.equal(body['next'], 5);
  assert.equal((body['summary'] as { superblockCount: number }).superblockCount, 7);
});

test('flush waits for the drive and tells how long it took', async () => {
  const { status, body } = await ask('POST', '/flush');
  assert.equal(status, 200);
  assert.ok((body['durationSeconds'] as number) >= 0);
  assert.equal(view.flushCount, 1);
});

test('a scrub is asked for, and told of', async () => {
  assert.deepEqual(await ask('GET', '/scrub'), { status: 200, body: view.scrub() });
  assert.equal(view.scrubState, 'waiting');
  const { status, body } = await ask('POST', '/scrub');
  assert.deepEqual([status, body['state']], [200, 'requested']);
  assert.deepEqual(await ask('GET', '/scrub'), { status: 200, body });
});

test('faults are added, listed and removed, by JSON and by msgpack', async () => {
  const request = { kind: 'bit-errors', where: { sequence: '7', layer: 0, head: 1, part: 'V', group: 3 }, bits: 9 };
  const asJson = { headers: { 'content-type': 'application/json' }, body: JSON.stringify(request) };
  const added = await ask('POST', '/faults', asJson);
  const status = { id: '1', ...request, count: 1, remainingCount: 1, pages: [] };
  assert.deepEqual(added, { status: 200, body: status });
  const erase = { kind: 'erase-failure', where: { superblock: 5, unit: 1 }, count: 2 };
  const headers = { 'content-type': 'application/msgpack' };
  assert.equal((await ask('POST', '/faults', { headers, body: pack(erase) })).body['id'], '2');
  assert.deepEqual(view.requests, [request, erase]);
  assert.equal(((await ask('GET', '/faults')).body['items'] as unknown[]).length, 2);
  assert.deepEqual(await ask('DELETE', '/faults/1'), { status: 200, body: { removed: '1' } });
  assert.equal((await ask('DELETE', '/faults/9')).body['code'], 'unknownFault');
  for (const [wrong, message] of [
    [null, /body must be object/],
    [{}, /body must have required property 'kind'/],
    [{ kind: 'fire' }, /body kind must be equal to one of the allowed values/],
    [{ kind: 'bit-errors', where: { block: 1 } }, /body where has no block/],
    [{ kind: 'bit-errors', where: { lba: -1 } }, /body where lba must be >= 0/],
    [{ kind: 'bit-errors', count: 0 }, /body count must be >= 1/],
  ] as const) {
    const { status: http, body } = await ask('POST', '/faults', { ...asJson, body: JSON.stringify(wrong) });
    assert.equal(http, 400);
    assert.match(String(body['message']), message);
  }
});

test('msgpack goes out and comes in by Accept and Content-Type', async () => {
  const headers = { accept: 'application/json;q=0.5, application/msgpack', 'content-type': 'application/msgpack' };
  const answer = await unix.request({ method: 'POST', path: '/flush', headers, body: pack({}) });
  assert.equal(answer.headers['content-type'], 'application/msgpack');
  const body = unpack(Buffer.from(await answer.body.arrayBuffer())) as { durationSeconds: number };
  assert.ok(body.durationSeconds >= 0);
  const json = await unix.request({ method: 'GET', path: '/drive', headers: { accept: 'text/html, */*;q=0.1' } });
  assert.match(String(json.headers['content-type']), /^application\/json/);
  await json.body.dump();
});

const refused: readonly [string, () => Promise<Answer>, number, string, RegExp][] = [
  ['unknown path', () => ask('GET', '/nowhere'), 404, 'unknownPath', /\/nowhere/],
  ['wrong method', () => ask('PUT', '/sequences/7'), 405, 'methodNotAllowed', /PUT \/sequences\/7/],
  ['limit too large', () => ask('GET', '/sequences?limit=5000'), 400, 'invalidField', /limit/],
  ['limit not a number', () => ask('GET', '/sequences?limit=many'), 400, 'invalidField', /limit/],
  ['unknown query', () => ask('GET', '/sequences?page=1'), 400, 'invalidField', /page/],
  ['unknown state', () => ask('GET', '/blocks?state=worn'), 400, 'invalidField', /state/],
  ['id not a number', () => ask('GET', '/sequences/abc'), 400, 'invalidField', /id/],
  ['id beyond 64 bits', () => ask('GET', '/sequences/99999999999999999999'), 400, 'invalidField', /99999999999/],
  ['unacceptable', () => ask('GET', '/drive', { headers: { accept: 'text/html' } }), 406, 'notAcceptable', /html/],
  ['a web page', () => ask('POST', '/flush', { headers: { origin: 'http://evil' } }), 403, 'forbiddenOrigin', /evil/],
  [
    'body of another type',
    () => ask('POST', '/flush', { headers: { 'content-type': 'text/xml' }, body: '<a/>' }),
    415,
    'unsupportedMediaType',
    /format/,
  ],
  [
    'broken JSON',
    () => ask('POST', '/flush', { headers: { 'content-type': 'application/json' }, body: '{' }),
    400,
    'malformedBody',
    /parsed/,
  ],
  [
    'broken msgpack',
    () => ask('POST', '/flush', { headers: { 'content-type': 'application/msgpack' }, body: Buffer.from([0xc7]) }),
    400,
    'malformedBody',
    /msgpack/,
  ],
  [
    'unknown field in the body',
    () => ask('POST', '/flush', { headers: { 'content-type': 'application/json' }, body: '{"force":true}' }),
    400,
    'invalidField',
    /force/,
  ],
  [
    'body too large',
    () => ask('POST', '/flush', { headers: { 'content-type': 'application/json' }, body: `"${'x'.repeat(70_000)}"` }),
    413,
    'bodyTooLarge',
    /large/,
  ],
];

for (const [name, request, status, code, message] of refused) {
  test(`refused with code, message and what is allowed: ${name}`, async () => {
    const answer = await request();
    assert.equal(answer.status, status);
    assert.equal(answer.body['code'], code);
    assert.match(String(answer.body['message']), message);
    assert.deepEqual(
      Object.keys(answer.body).filter((key) => !['code', 'message', 'allowed'].includes(key)),
      [],
    );
  });
}

test('an unexpected failure shows nothing of its inside', async () => {
  view.failure = new Error('secret /path at line 3');
  assert.deepEqual(await ask('GET', '/drive'), { status: 500, body: { code: 'internal', message: 'internal error' } });
});

test('what is not HTTP gets a 400 in the same shape, and the server goes on', async () => {
  const text = await new Promise<string>((resolve, reject) => {
    const socket = connect(join(folder, 'admin.sock'), () => socket.write('\x00\x01\x02 not http\r\n\r\n'));
    let received = '';
    socket.on('data', (chunk) => (received += chunk.toString()));
    socket.on('close', () => resolve(received));
    socket.on('error', reject);
  });
  assert.match(text, /^HTTP\/1\.1 400 /);
  assert.equal((JSON.parse(text.split('\r\n\r\n')[1] ?? '') as { code: string }).code, 'malformedBody');
  assert.equal((await ask('GET', '/health')).status, 200);
});

test('a connection that never speaks, or stops in the middle of a request, is closed', async () => {
  const socketPath = join(folder, 'impatient.sock');
  const modules = { view, clock: systemClock, logger: silentLogger };
  const impatient = new AdminServer({ socketPath, requestTimeoutMs: 40 }, modules);
  await impatient.start();
  for (const start of [
    '',
    'GET /drive HTTP/1.1\r\nhost: x\r\n',
    'POST /flush HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{',
  ]) {
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(socketPath, () => socket.write(start));
      let received = '';
      socket.on('data', (chunk) => (received += chunk.toString()));
      socket.on('close', () => resolve(received));
      socket.on('error', reject);
    });
    assert.match(text, /^HTTP\/1\.1 408 .*"requestTimeout"/s);
  }
  await impatient.close();
});

test('a port in use and a file in place of the socket are named errors', async () => {
  const modules = { view, clock: systemClock, logger: silentLogger };
  const port = server.httpAddress?.port ?? 0;
  const second = new AdminServer({ socketPath: join(folder, 'b.sock'), http: { host: '127.0.0.1', port } }, modules);
  await assert.rejects(second.start(), { code: 'addressInUse', message: `address in use: HTTP on 127.0.0.1:${port}` });
  await second.close();
  await writeFile(join(folder, 'file'), 'precious');
  await assert.rejects(new AdminServer({ socketPath: join(folder, 'file') }, modules).start(), /is not a socket/);
});

test('a stale socket is replaced', async () => {
  const socketPath = join(folder, 'stale.sock');
  const modules = { view, clock: systemClock, logger: silentLogger };
  const first = new AdminServer({ socketPath }, modules);
  await first.start();
  const second = new AdminServer({ socketPath }, modules);
  await second.start();
  const client = new Client('http://drive', { socketPath });
  assert.equal((await client.request({ method: 'GET', path: '/health' })).statusCode, 200);
  await client.destroy();
  await first.close();
  await second.close();
});
