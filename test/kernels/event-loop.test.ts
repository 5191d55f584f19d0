import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { pendingEvents } from '../../daemon/kernels/native/event-loop.ts';

const hasPendingEvents = pendingEvents();
const skip = hasPendingEvents === undefined ? 'SKIPPED: needs the native addon on Linux' : false;

test('what waits on a socket is pending until the event loop has taken it', { skip }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-loop-'));
  const server = createServer();
  try {
    server.listen(join(folder, 'socket'));
    await once(server, 'listening');
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const near = connect(join(folder, 'socket'));
    const [far] = await accepted;
    far.on('error', () => undefined);
    for (let round = 0; round < 20; round++) {
      const arrived = once(far, 'data');
      // Sockets are watched from the next turn on, and a turn may still have something to do.
      for (let turns = 0; turns < 3; turns++) await turn();
      assert.equal(hasPendingEvents!(), false, 'nothing has come');
      near.write('a');
      assert.equal(hasPendingEvents!(), true, 'it has come, and nobody has taken it');
      assert.equal(hasPendingEvents!(), true, 'a look takes nothing');
      await arrived;
    }
    near.destroy();
    far.destroy();
  } finally {
    server.close();
    rmSync(folder, { recursive: true });
  }
});
