import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { AdminClient, AdminRequestError, DriveUnreachableError } from '../../client/index.ts';
import { AdminServer } from '../../daemon/admin/admin-server.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { parseExposition } from '../admin/exposition.ts';
import { FakeDriveView, sequenceOf } from '../admin/fake-drive-view.ts';

let folder: string;
let view: FakeDriveView;
let server: AdminServer;
let clients: AdminClient[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'attndrive-admin-client-'));
  view = new FakeDriveView();
  const options = { socketPath: join(folder, 'admin.sock'), http: { host: '127.0.0.1', port: 0 } };
  server = new AdminServer(options, { view, clock: systemClock, logger: silentLogger });
  await server.start();
  const port = server.httpAddress?.port;
  clients = [`unix:${options.socketPath}`, `tcp:127.0.0.1:${port}`, `http://127.0.0.1:${port}/`].map(
    (address) => new AdminClient(address),
  );
});

afterEach(async () => {
  await Promise.all(clients.map((client) => client.close()));
  await server.close();
  rmSync(folder, { recursive: true });
});

test('every route answers what the drive says, over the socket and over TCP', async () => {
  for (const client of clients) {
    assert.deepEqual(await client.drive(), view.drive());
    assert.deepEqual(await client.health(), view.health());
    assert.deepEqual(await client.namespaces(), view.namespaces());
    assert.deepEqual(await client.connections(), []);
    assert.deepEqual(await client.faults(), []);
    assert.deepEqual(await client.scrub(), view.scrub());
    assert.deepEqual(await client.sequence(7n), sequenceOf(7n));
    const { items, next } = await client.sequences({ limit: 1, after: 3n });
    assert.deepEqual([items[0]?.id, next], ['7', '7']);
    const blocks = await client.blocks({ state: 'full', limit: 5 });
    assert.deepEqual(blocks.summary, view.blockSummary());
    assert.equal(blocks.items.length, 3);
    if (client !== clients[0]) await assert.rejects(client.flush(), { code: 'changesNotAllowed', httpStatus: 403 });
    else assert.ok((await client.flush()).durationSeconds >= 0);
    assert.ok(parseExposition(await client.metrics()).some(({ name }) => name === 'attndrive_commands_total'));
  }
  assert.equal(view.flushCount, 1);
  const added = await clients[0]?.addFault({ kind: 'read-failure', where: { page: 7 }, count: 3 });
  assert.deepEqual(await clients[2]?.faults(), [added]);
  await clients[0]?.removeFault('1');
  assert.deepEqual(view.requests, []);
  assert.equal((await clients[0]?.startScrub())?.state, 'requested');
  await clients[0]?.reclaim(7n);
  assert.equal(view.ids.has(7n), false);
});

test('health is told of a drive that is not ready', async () => {
  view.ready = false;
  assert.equal((await clients[0]?.health())?.ready, false);
});

test('a refusal is an error with code, status and what is allowed', async () => {
  await assert.rejects(clients[0]?.sequence(9n) ?? Promise.resolve(), (error: AdminRequestError) => {
    assert.ok(error instanceof AdminRequestError);
    assert.deepEqual([error.code, error.httpStatus, error.retry], ['unknownSequence', 404, false]);
    return true;
  });
  await assert.rejects(clients[1]?.sequences({ limit: 5000 }) ?? Promise.resolve(), (error: AdminRequestError) => {
    assert.deepEqual([error.code, error.allowed], ['invalidField', '<= 1000']);
    assert.match(error.message, /querystring limit must be <= 1000; allowed: <= 1000/);
    return true;
  });
});

test('a control plane that is not there is an unreachable drive', async () => {
  const client = new AdminClient(`unix:${join(folder, 'none.sock')}`);
  await assert.rejects(client.health(), (error: Error) => {
    assert.ok(error instanceof DriveUnreachableError);
    assert.match(error.message, /is the drive running\?/);
    return true;
  });
  await client.close();
});
