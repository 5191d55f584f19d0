/** The control plane over TCP and TLS with a token, as programs and strangers meet it. */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { once } from 'node:events';
import { request } from 'node:https';
import { connect as connectTls } from 'node:tls';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Client } from 'undici';
import { AdminClient } from '../../client/index.ts';
import { BearerToken } from '../../daemon/admin/access.ts';
import { AdminServer, type AdminServerOptions } from '../../daemon/admin/admin-server.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { createLogger } from '../../daemon/base/logger.ts';
import { limits } from '../../spec/limits.ts';
import { makeCertificate } from './certificate.ts';
import { FakeDriveView } from './fake-drive-view.ts';

const TOKEN = 'a-token-that-nobody-will-ever-guess-1';
const OTHER = 'a-token-that-nobody-will-ever-guess-2';

interface Served {
  readonly server: AdminServer;
  readonly view: FakeDriveView;
  readonly port: number;
  readonly log: string[];
  file(name: string, text: string): string;
}

async function serve(t: TestContext, options: Partial<AdminServerOptions> = {}): Promise<Served> {
  const folder = mkdtempSync(join(tmpdir(), 'http-access-'));
  const view = new FakeDriveView();
  const log: string[] = [];
  const logger = createLogger({ level: 'trace' }, { write: (line) => void log.push(line) });
  const http = { host: '127.0.0.1', port: 0 };
  const secrets = { token: new BearerToken(TOKEN), tls: undefined };
  const socketPath = join(folder, 'admin.sock');
  const server = new AdminServer({ socketPath, http, secrets, ...options }, { view, clock: systemClock, logger });
  await server.start();
  t.after(async () => {
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const file = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    chmodSync(path, 0o600);
    return path;
  };
  return { server, view, port: server.httpAddress!.port, log, file };
}

async function ask(
  t: TestContext,
  port: number,
  path: string,
  headers: Record<string, string> = {},
  method: 'GET' | 'POST' = 'GET',
) {
  const client = new Client(`http://127.0.0.1:${port}`);
  t.after(() => client.close());
  const answer = await client.request({ method, path, headers });
  return { status: answer.statusCode, headers: answer.headers, text: await answer.body.text() };
}

test('a token opens everything; without it only health answers, and the log says who tried', async (t) => {
  const { port, view, server, log } = await serve(t);
  assert.equal((await ask(t, port, '/health')).status, 200);
  for (const path of ['/drive', '/metrics', '/sequences', '/nowhere']) {
    const { status, headers, text } = await ask(t, port, path);
    assert.deepEqual([status, headers['www-authenticate']], [401, 'Bearer realm="attndrive"'], path);
    assert.equal((JSON.parse(text) as { code: string }).code, 'tokenRequired');
  }
  const wrong = await ask(t, port, '/flush', { authorization: `Bearer ${OTHER}` }, 'POST');
  assert.deepEqual([wrong.status, view.flushCount], [401, 0]);
  const right = await ask(t, port, '/flush', { authorization: `Bearer ${TOKEN}` }, 'POST');
  assert.deepEqual([right.status, view.flushCount], [200, 1]);
  assert.equal(server.refusedCounts.get('tokenRequired'), 5);
  assert.equal(
    log.filter((line) => /"peer":"127\.0\.0\.1".*"code":"tokenRequired".*HTTP request refused/.test(line)).length,
    5,
  );
  assert.ok(!log.join('').includes(TOKEN.slice(0, 12)), 'neither token nor guesses are logged');
});

test('a thousand guesses: all refused and counted, and the log does not grow with them', async (t) => {
  const { port, server, log } = await serve(t);
  const client = new Client(`http://127.0.0.1:${port}`, { pipelining: 1 });
  t.after(() => client.close());
  for (let i = 0; i < 1000; i++) {
    const authorization = `Bearer ${TOKEN.slice(0, -4)}${String(i).padStart(4, '0')}`;
    const { statusCode, body } = await client.request({ method: 'GET', path: '/drive', headers: { authorization } });
    await body.dump();
    assert.equal(statusCode, 401);
  }
  assert.equal(server.refusedCounts.get('tokenRequired'), 1000);
  assert.ok(log.length <= 20, `${log.length} lines`);
});

test('without a token TCP only shows the drive; the socket changes it', async (t) => {
  const { port, view, server } = await serve(t, { secrets: undefined });
  assert.equal((await ask(t, port, '/drive')).status, 200);
  const refused = await ask(t, port, '/flush', {}, 'POST');
  assert.equal(refused.status, 403);
  assert.match(refused.text, /"allowed":"by the Unix socket, or with --http-token-file"/);
  assert.deepEqual([view.flushCount, server.refusedCounts.get('changesNotAllowed')], [0, 1]);
});

test('a name that somebody else gave this machine is not served', async (t) => {
  const { port } = await serve(t, { secrets: undefined });
  const { status, text } = await ask(t, port, '/drive', { host: 'rebound.evil.example' });
  assert.equal(status, 421);
  assert.match(text, /"code":"unknownHost".*rebound\.evil\.example/);
});

test('every answer, errors too, forbids browsers to guess, frame or keep it', async (t) => {
  const { port } = await serve(t);
  for (const path of ['/health', '/drive', '/nowhere', '/%zz']) {
    const { headers, text } = await ask(t, port, path, { authorization: `Bearer ${TOKEN}` });
    assert.equal(headers['x-content-type-options'], 'nosniff', path);
    assert.equal(headers['cache-control'], 'no-store', path);
    assert.match(String(headers['content-security-policy']), /default-src 'none'/, path);
    assert.equal(headers['server'] ?? headers['x-powered-by'], undefined);
    assert.ok(!/\bat .*:\d+:\d+|node_modules|\.ts\b|\.js\b/.test(text), text);
  }
});

test('TLS: the SDK trusts what it is told to and nothing else, and sends no token in the clear', async (t) => {
  const tls = makeCertificate(1);
  const { port, file, view } = await serve(t, { secrets: { token: new BearerToken(TOKEN), tls } });
  const address = `https://127.0.0.1:${port}`;
  const tokenFile = file('token', `${TOKEN}\n`);
  const trusting = new AdminClient(address, { tokenFile, caFile: file('ca.pem', tls.cert) });
  t.after(() => trusting.close());
  assert.deepEqual(await trusting.drive(), view.drive());
  const strange = new AdminClient(address, { tokenFile, caFile: file('other.pem', makeCertificate(2).cert) });
  t.after(() => strange.close());
  await assert.rejects(strange.drive(), /self-signed|unable to verify|certificate/i);
  const unknown = new AdminClient(address, { tokenFile });
  t.after(() => unknown.close());
  await assert.rejects(unknown.drive(), /self-signed|unable to verify|certificate/i);
  assert.throws(() => new AdminClient('http://192.0.2.7:4480', { tokenFile }), /a token goes over TLS only/);
  assert.throws(() => new AdminClient('http://127.0.0.1.evil.example:80', { tokenFile }), /a token goes over TLS only/);
  const plain = new AdminClient(`http://127.0.0.1:${port}`, { tokenFile });
  t.after(() => plain.close());
  await assert.rejects(plain.drive());
});

test('secrets are replaced while it listens: the next request and the next handshake use the new ones', async (t) => {
  const first = makeCertificate(3);
  const second = makeCertificate(4);
  const { port, server } = await serve(t, { secrets: { token: new BearerToken(TOKEN), tls: first } });
  const serialNow = async (): Promise<string> => {
    const socket = connectTls({ host: '127.0.0.1', port, rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  };
  const statusWith = (token: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const headers = { authorization: `Bearer ${token}` };
      const options = {
        host: '127.0.0.1',
        port,
        path: '/drive',
        headers,
        rejectUnauthorized: false,
        agent: false,
      } as const;
      request(options, (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? 0);
      })
        .on('error', reject)
        .end();
    });
  assert.deepEqual([await serialNow(), await statusWith(TOKEN), await statusWith(OTHER)], ['03', 200, 401]);
  server.replaceSecrets({ token: new BearerToken(OTHER), tls: second });
  assert.deepEqual([await serialNow(), await statusWith(TOKEN), await statusWith(OTHER)], ['04', 401, 200]);
});

test('TLS 1.1 is not spoken', async (t) => {
  const tls = makeCertificate(5);
  const { port } = await serve(t, { secrets: { token: undefined, tls } });
  const socket = connectTls({
    host: '127.0.0.1',
    port,
    rejectUnauthorized: false,
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1.1',
  });
  const [error] = (await once(socket, 'error')) as [Error];
  assert.match(error.message, /protocol|alert|reset/i);
});

/** Connections that say nothing, or say it a byte at a time, are closed. */
function untilClosed(socket: Socket): Promise<void> {
  socket.resume();
  socket.on('error', () => undefined);
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

for (const [what, first] of [
  ['say nothing', ''],
  ['stop inside of a header', 'GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: '],
  [
    'promise a body that does not come',
    'POST /flush HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
  ],
] as const) {
  for (const secure of [false, true]) {
    test(`connections that ${what} are closed and keep nobody out for longer${secure ? ', with TLS' : ''}`, async (t) => {
      const tls = secure ? makeCertificate(6) : undefined;
      const { port, view } = await serve(t, { requestTimeoutMs: 200, secrets: { token: undefined, tls } });
      const flood = Array.from({ length: limits.adminConnectionCountMax + 8 }, () => {
        // With TLS the handshake itself is what does not go on.
        const socket = connect(port, '127.0.0.1');
        socket.once('connect', () => socket.write(first));
        return socket;
      });
      await Promise.all(flood.map(untilClosed));
      const path = tls && { ca: tls.cert };
      const client = new Client(`${secure ? 'https' : 'http'}://127.0.0.1:${port}`, path ? { connect: path } : {});
      t.after(() => client.close());
      const { statusCode, body } = await client.request({ method: 'GET', path: '/drive' });
      assert.equal(statusCode, 200);
      assert.deepEqual(await body.json(), view.drive());
    });
  }
}
