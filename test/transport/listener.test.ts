import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { DriveError } from '../../daemon/base/errors.ts';
import { createLogger } from '../../daemon/base/logger.ts';
import { RawHost } from '../controller/raw-host.ts';
import { createRig } from '../controller/rig.ts';

describe('listening', () => {
  test('a port in use is one line that names the address', async (t) => {
    const rig = await createRig(t);
    const port = Number(rig.tcp.split(':').at(-1));
    await assert.rejects(rig.transport.listen({ kind: 'tcp', host: '127.0.0.1', port }), (error) => {
      assert.ok(error instanceof DriveError);
      assert.equal(error.code, 'addressInUse');
      assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${port}`));
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  });

  test('a Unix socket that somebody listens on is in use; one that was left behind is replaced', async (t) => {
    const rig = await createRig(t);
    const path = rig.unix.slice('unix:'.length);
    await assert.rejects(rig.transport.listen({ kind: 'unix', path, mode: 0o600 }), { code: 'addressInUse' });
    const { createServer } = await import('node:net');
    const left = join(rig.folder, 'left.sock');
    const server = createServer().listen(left);
    await new Promise((resolve) => server.once('listening', resolve));
    // A hard link survives the server's own clean-up, as the socket file of a killed process does.
    const { linkSync } = await import('node:fs');
    const stale = join(rig.folder, 'stale.sock');
    linkSync(left, stale);
    await new Promise((resolve) => server.close(resolve));
    assert.ok(existsSync(stale));
    const address = await rig.transport.listen({ kind: 'unix', path: stale, mode: 0o660 });
    assert.equal(address, `unix:${stale}`);
    assert.equal(statSync(stale).mode & 0o777, 0o660);
    (await RawHost.open(address)).close();
  });

  test('a path that is no socket is left alone', async (t) => {
    const rig = await createRig(t);
    const folder = mkdtempSync(join(tmpdir(), 'listen-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'precious');
    writeFileSync(path, 'data');
    await assert.rejects(rig.transport.listen({ kind: 'unix', path, mode: 0o600 }), DriveError);
    assert.ok(existsSync(path));
  });

  test('only the owner may open the socket file', async (t) => {
    const rig = await createRig(t);
    assert.equal(statSync(rig.unix.slice('unix:'.length)).mode & 0o777, 0o600);
  });

  test('an address that this machine does not have', async (t) => {
    const rig = await createRig(t);
    await assert.rejects(rig.transport.listen({ kind: 'tcp', host: '192.0.2.1', port: 0 }), {
      code: 'invalidField',
      message: /192\.0\.2\.1:0/,
    });
  });

  test('at the limit the one that waits longest to get in gives way; where all are in, a new one is closed', async (t) => {
    const rig = await createRig(t, { limits: { connectionCountMax: 2 } });
    const { host, cntlid } = await rig.admin();
    const second = await rig.host();
    const third = await rig.host(rig.tcp);
    await second.untilClosed();
    assert.equal(rig.transport.snapshot().refusedCounts.limit, 1);
    third.close();
    while (rig.transport.snapshot().connections.length > 1) await new Promise((resolve) => setImmediate(resolve));
    const io = await rig.io(cntlid);
    const fourth = await RawHost.open(rig.tcp);
    await fourth.untilClosed();
    assert.equal(rig.transport.snapshot().refusedCounts.limit, 2);
    assert.equal(host.closed || io.closed, false);
  });

  test('a flood that never gets in keeps nobody out, and fills no log', async (t) => {
    const lines: string[] = [];
    const logger = createLogger({ level: 'info' }, { write: (line) => void lines.push(line) });
    const rig = await createRig(t, { limits: { connectionCountMax: 32 }, modules: { logger } });
    const { host } = await rig.admin();
    const flood: RawHost[] = [];
    t.after(() => flood.forEach((stranger) => stranger.close()));
    for (let i = 0; i < 200; i++) {
      const stranger = await RawHost.open(rig.tcp);
      flood.push(stranger);
      // Some say nothing, some a part of ICReq, some what no PDU is.
      const bytes = stranger.icReqBytes();
      if (i % 3 > 0) stranger.write(i % 3 === 1 ? bytes.subarray(0, 7) : Buffer.alloc(200, i));
      if (i % 40 !== 0) continue;
      const late = await rig.admin({ address: rig.tcp });
      assert.equal((await late.host.propertyGet(0x1c)).status, 0);
      late.host.close();
    }
    assert.equal((await host.propertyGet(0x1c)).status, 0);
    assert.ok(rig.transport.snapshot().connections.length <= 32);
    assert.ok(lines.length <= 20, `${lines.length} lines`);
    assert.deepEqual(rig.fatals, []);
  });

  test('closing ends every connection', async (t) => {
    const rig = await createRig(t);
    const { host } = await rig.admin();
    await rig.subsystem.close();
    await rig.transport.close();
    await host.untilClosed();
    assert.equal(existsSync(rig.unix.slice('unix:'.length)), false);
  });
});
