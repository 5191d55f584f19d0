import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import {
  DriveClient,
  DriveCommandError,
  DriveDisconnectedError,
  DriveProtocolError,
  DriveTimeoutError,
  DriveUnreachableError,
} from '../../client/index.ts';
import { adminOpcodes, c2hTermReq, icResp, kvOpcodes, nvmOpcodes, pduTypes } from '../../spec/index.ts';
import { FakeDrive, type FakeCommand, type FakeDriveOptions } from './fake-drive.ts';
import { FakeKv } from './fake-kv.ts';
import { randomBytes } from './random.ts';

const cleanups: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function startDrive(options: FakeDriveOptions = {}): Promise<{ drive: FakeDrive; kv: FakeKv; address: string }> {
  const drive = new FakeDrive(options);
  const address = await drive.start();
  cleanups.push(() => drive.stop());
  return { drive, kv: new FakeKv(drive), address };
}

async function connect(address: string, options: Parameters<typeof DriveClient.connect>[1] = {}): Promise<DriveClient> {
  const client = await DriveClient.connect(address, { keepAliveMs: 0, ...options });
  cleanups.push(() => client.close());
  return client;
}

for (const tcp of [false, true]) {
  test(`connects over ${tcp ? 'TCP' : 'a Unix socket'}, with as many I/O queues as the drive grants`, async () => {
    const { drive, address } = await startDrive({ tcp, ioQueueCountMax: 3 });
    const client = await connect(address, { ioQueueCount: 8 });
    assert.equal(client.address, address);
    assert.equal(client.identity.sn, 'FAKE1');
    const queueIds = new Set([...drive.connections].map(({ queueId }) => queueId));
    assert.deepEqual(queueIds, new Set([0, 1, 2, 3]));
    assert.equal((await client.controller.identifyController()).mn, 'fake drive');
    await client.close();
    assert.equal(client.isConnected, false);
    await assert.rejects(client.flush(), DriveDisconnectedError);
  });
}

const awkward: readonly FakeDriveOptions[] = [
  {},
  { c2hBytes: 1000, successFlag: true },
  { r2tBytes: 5000, maxh2cdata: 4096, cpda: 15 },
  { scrapBytes: 7, c2hBytes: 3000 },
  { inCapsuleBytes: 0, mdts: 1, r2tBytes: 4096 },
  { regions: true },
];

for (const options of awkward) {
  test(`blocks come back as written whatever the drive is like: ${JSON.stringify(options)}`, async () => {
    const { address } = await startDrive(options);
    // One client sleeps while it waits, the next doesn't.
    const client = await connect(address, { ioQueueCount: 2, busyPollUs: options.regions === true ? 0 : 200 });
    const bytes = randomBytes(37 * 4096, 1);
    await client.block.write(5, bytes);
    assert.deepEqual(await client.block.read(5, 37), bytes);
    await client.block.deallocate([
      { lba: 6, blockCount: 2 },
      { lba: 20, blockCount: 1 },
    ]);
    await client.block.writeZeroes(30, 3);
    const after = await client.block.read(4, 39);
    for (let lba = 4; lba < 43; lba++) {
      const block = after.subarray((lba - 4) * 4096, (lba - 3) * 4096);
      const zero = [4, 6, 7, 20, 30, 31, 32, 42].includes(lba);
      const expected = zero ? new Uint8Array(4096) : bytes.subarray((lba - 5) * 4096, (lba - 4) * 4096);
      assert.deepEqual(block, expected, `block ${lba}`);
    }
  });
}

test('data goes in the capsule, by R2T, or through a region, whichever is shortest', async () => {
  const plain = await startDrive({ inCapsuleBytes: 8192 });
  const client = await connect(plain.address);
  await client.block.write(0, new Uint8Array(8192));
  await client.block.write(0, new Uint8Array(12_288));
  const sgls = plain.drive.log.filter(({ opcode, queueId }) => queueId > 0 && opcode === nvmOpcodes.write.opcode);
  assert.deepEqual(
    sgls.map(({ sgl }) => sgl),
    ['inCapsule', 'transport'],
  );

  const shared = await startDrive({ inCapsuleBytes: 8192, regions: true });
  const neighbour = await connect(shared.address);
  assert.equal(neighbour.sharesMemory, true);
  await neighbour.block.write(0, new Uint8Array(12_288));
  await neighbour.block.read(0, 5);
  await neighbour.block.read(0, 2);
  assert.deepEqual(
    shared.drive.log.filter(({ queueId }) => queueId > 0).map(({ sgl }) => sgl),
    ['keyed', 'keyed', 'transport'],
  );
});

test('regions are not used over TCP unless asked for, nor where the drive has none', async () => {
  const tcp = await startDrive({ tcp: true, regions: true });
  assert.equal((await connect(tcp.address)).sharesMemory, false);
  assert.equal((await connect(tcp.address, { regions: 'on' })).sharesMemory, true);
  const none = await startDrive();
  assert.equal((await connect(none.address)).sharesMemory, false);
  await assert.rejects(connect(none.address, { regions: 'on' }), { code: 'regionUnavailable' });
});

test('a region is written and read, names its file, and goes away with the client', async () => {
  const { drive, address } = await startDrive({ regions: true });
  const client = await connect(address);
  const region = await client.createRegion(100_000);
  region.write(70, randomBytes(5000, 2));
  assert.deepEqual(drive.readRegion(region.key, 70, 5000), randomBytes(5000, 2));
  assert.deepEqual(region.read(72, 100), randomBytes(5000, 2).slice(2, 102));
  assert.throws(() => region.write(99_999, new Uint8Array(2)), RangeError);
  assert.throws(() => region.read(-1, 1), RangeError);
  await region.close();
  assert.equal(drive.regions.has(region.key), false);
  assert.throws(() => region.read(0, 1), { code: 'regionUnavailable' });
});

test('a region whose file is not what the drive says is not used, and data goes over the socket', async () => {
  const { drive, address } = await startDrive({ regions: true });
  drive.admin = (command) => {
    if (command.entry.opcode !== adminOpcodes.regionCreate.opcode) return false;
    const descriptor = drive.createRegion(command.entry.cdw10);
    descriptor[16] = '!'.charCodeAt(0);
    command.give(descriptor);
    return true;
  };
  const client = await connect(address);
  assert.equal(client.sharesMemory, false);
  assert.equal(drive.regions.size, 0, 'the region that could not be opened was deleted');
  await client.block.write(0, new Uint8Array(65_536));
});

test('more commands than the queues hold wait for credits, and all of them end', async () => {
  const { drive, address } = await startDrive();
  let running = 0;
  let most = 0;
  const held: (() => void)[] = [];
  drive.io = (command) => {
    running++;
    most = Math.max(most, running);
    held.push(() => {
      running--;
      command.complete(command.entry.cdw10);
    });
    if (held.length >= 14) for (const release of held.splice(0)) setImmediate(release);
  };
  const client = await connect(address, { ioQueueCount: 2, queueDepth: 8 });
  const results = await Promise.all(
    Array.from({ length: 140 }, (_, cdw10) => client.passThrough({ queue: 'io', opcode: 0, cdw10 })),
  );
  assert.deepEqual(
    results.map(({ dw0 }) => dw0),
    Array.from({ length: 140 }, (_, i) => i),
  );
  assert.equal(most, 14, 'two queues of 8 entries hold 7 commands each');
});

test('a status becomes an error with code, status and what it was about', async () => {
  const { address } = await startDrive();
  const client = await connect(address);
  await assert.rejects(client.kv.open(77n), (error: DriveCommandError) => {
    assert.ok(error instanceof DriveCommandError);
    const { code, sct, sc, dnr, retry, opcodeName } = error;
    const expected = { code: 'unknownSequence', sct: 1, sc: 0xc0, dnr: true, retry: false, opcodeName: 'KV Query' };
    assert.deepEqual({ code, sct, sc, dnr, retry, opcodeName }, expected);
    assert.match(error.message, /KV Query \(sequence 77\): unknown sequence/);
    return true;
  });
  await assert.rejects(connect(address, { subsystemNqn: 'nqn.2026-11.dev.attndrive:wrong' }), {
    code: 'connectInvalidParameters',
    message: /subsystem nqn.2026-11.dev.attndrive:wrong/,
  });
});

test('an aborted command is given up at once; its place in the queue is free when the drive answers', async () => {
  const { drive, address } = await startDrive();
  const held: FakeCommand[] = [];
  drive.io = (command) => void held.push(command);
  const client = await connect(address, { queueDepth: 2 });
  const controller = new AbortController();
  const first = client.block.read(0, 1, { signal: controller.signal });
  const second = client.passThrough({ queue: 'io', opcode: 0, cdw10: 2 });
  const waiting = client.passThrough({ queue: 'io', opcode: 0, cdw10: 3 }, { signal: controller.signal });
  await new Promise((resolve) => setTimeout(resolve, 20));
  controller.abort(new Error('changed my mind'));
  await assert.rejects(first, /changed my mind/);
  await assert.rejects(waiting, /changed my mind/);
  assert.equal(client.inFlightCount, 1);
  drive.io = (command) => command.complete(command.entry.cdw10);
  held[0]?.give(new Uint8Array(4096).fill(7));
  assert.equal((await second).dw0, 2);
  await assert.rejects(client.flush(1, { signal: AbortSignal.abort(new Error('too late')) }), /too late/);
});

test('a command that gets no answer in its time is a timeout that names it', async () => {
  const { drive, address } = await startDrive();
  drive.io = () => undefined;
  const client = await connect(address);
  const reading = client.block.read(3, 1, { timeoutMs: 20 });
  await assert.rejects(reading, (error: Error) => {
    assert.ok(error instanceof DriveTimeoutError);
    assert.match(error.message, /Read \(blocks 3 to 4\): no answer in 20 ms/);
    return true;
  });
});

test('a lost connection fails everything under way and everything after it, and nothing is sent twice', async () => {
  const { drive, address } = await startDrive();
  let seen = 0;
  drive.io = (command) => {
    seen++;
    if (seen === 3) command.connection.socket.destroy();
  };
  const client = await connect(address, { ioQueueCount: 2, queueDepth: 2 });
  const running = Array.from({ length: 6 }, (_, cdw10) => client.passThrough({ queue: 'io', opcode: 0, cdw10 }));
  drive.io = (command) => {
    seen++;
    if (seen === 2) command.connection.socket.destroy();
  };
  for (const result of await Promise.allSettled(running)) {
    assert.equal(result.status, 'rejected');
    assert.ok(result.reason instanceof DriveDisconnectedError, String(result.reason));
    assert.equal(result.reason.code, 'disconnected');
    assert.equal(result.reason.message.match(/connection/g)?.length, 1, result.reason.message);
  }
  assert.ok((await client.disconnected) instanceof DriveDisconnectedError);
  assert.equal(client.isConnected, false);
  await assert.rejects(client.block.read(0, 1), DriveDisconnectedError);
  assert.equal(seen, 2);
});

test('keep alive goes out, and a drive that does not answer it is gone', async () => {
  const { drive, address } = await startDrive();
  let beats = 0;
  drive.admin = ({ entry }) => entry.opcode === adminOpcodes.keepAlive.opcode && ++beats > 2;
  const client = await connect(address, { keepAliveMs: 40 });
  const held = client.passThrough({ queue: 'io', opcode: 0 });
  drive.io = () => undefined;
  // The client's timers do not keep a process alive; this test waits for them.
  const awake = setInterval(() => undefined, 5);
  const reason = await client.disconnected;
  clearInterval(awake);
  assert.match(reason.message, /no keep alive in 40 ms/);
  await held.catch((error: Error) => assert.ok(error instanceof DriveDisconnectedError));
  assert.equal(beats, 3);
});

const violations: readonly [string, (command: FakeCommand) => void, RegExp][] = [
  ['an answer to no command', ({ connection }) => connection.completion(99, 0), /command 99, which is not in flight/],
  [
    'two answers to one',
    ({ connection, entry }) => {
      connection.completion(entry.commandId, 0);
      connection.completion(entry.commandId, 0);
    },
    /not in flight|succeeded with 0 of 4096/,
  ],
  ['success without the data', (command) => command.complete(), /succeeded with 0 of 4096 bytes/],
  [
    'data past the end',
    ({ connection, entry }) => connection.data(entry.commandId, 0, new Uint8Array(5000), 4),
    /5000 bytes at 0/,
  ],
  [
    'data with a gap',
    ({ connection, entry }) => connection.data(entry.commandId, 512, new Uint8Array(512), 0),
    /512 bytes at 512/,
  ],
  ['a request for data', ({ connection, entry }) => void connection.ask(entry.commandId, new Uint8Array(9), 0), /R2T/],
  ['an unknown PDU', ({ connection }) => connection.write(Uint8Array.of(0x42, 0, 24, 0, 24, 0, 0, 0)), /PDU type 66/],
  ['a PDU of the host', ({ connection }) => connection.write(Uint8Array.of(4, 0, 72, 0, 72, 0, 0, 0)), /PDU type 4/],
  ['a header too short', ({ connection }) => connection.write(Uint8Array.of(5, 0, 16, 0, 24, 0, 0, 0)), /16 bytes/],
  ['a length that lies', ({ connection }) => connection.write(Uint8Array.of(5, 0, 24, 0, 8, 0, 0, 0)), /8 bytes/],
  ['digests', ({ connection }) => connection.write(Uint8Array.of(5, 1, 24, 0, 28, 0, 0, 0)), /digests/],
  [
    'a termination request',
    ({ connection }) => {
      const { type, hlen } = pduTypes.c2hTermReq;
      connection.write(c2hTermReq.encode({ type, hlen, plen: hlen, fes: 4, fei: 9 }));
    },
    /fatal error 4 \(dataOutOfRange\)/,
  ],
];

for (const [name, misbehave, message] of violations) {
  test(`a drive that breaks the protocol is left: ${name}`, async () => {
    const { drive, address } = await startDrive();
    drive.io = misbehave;
    const client = await connect(address);
    await assert.rejects(client.block.read(0, 1), (error: Error) => {
      assert.ok(error instanceof DriveProtocolError, String(error));
      assert.match(error.message, message);
      return true;
    });
    assert.equal(client.isConnected, false);
  });
}

test('a second answer that comes when its place is in use again matches nothing', async () => {
  const { drive, address } = await startDrive();
  const client = await connect(address, { queueDepth: 2 });
  let stale: number | undefined;
  drive.io = (command) => {
    stale ??= command.entry.commandId;
    command.connection.completion(stale, 0, 1);
  };
  const first = await client.passThrough({ queue: 'io', opcode: 0 });
  assert.equal(first.dw0, 1);
  await assert.rejects(client.passThrough({ queue: 'io', opcode: 0 }), /which is not in flight/);
});

test('nothing listening, a silent peer, and a peer of another protocol are unreachable drives', async () => {
  const path = join(tmpdir(), `attndrive-none-${process.pid}.sock`);
  await assert.rejects(DriveClient.connect(`unix:${path}`), (error: Error) => {
    assert.ok(error instanceof DriveUnreachableError);
    assert.match(error.message, /attndrive start DIR/);
    return true;
  });
  await assert.rejects(DriveClient.connect('ftp:elsewhere'), /allowed: unix:PATH, tcp:HOST:PORT/);
  const answers = [undefined, 'HTTP/1.1 400 Bad Request\r\n\r\n', badParameters()];
  for (const answer of answers) {
    const server = createServer((socket) => answer !== undefined && socket.write(answer));
    const port = await listen(server);
    const connecting = DriveClient.connect(`tcp:127.0.0.1:${port}`, { connectTimeoutMs: 50 });
    await assert.rejects(connecting, DriveUnreachableError);
    server.close();
  }
});

function badParameters(): Uint8Array {
  const { type, hlen } = pduTypes.icResp;
  return icResp.encode({ type, hlen, plen: hlen, maxh2cdata: 16 });
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as { port: number }).port));
  });
}

test('arguments that no drive could accept are refused before anything is sent', async () => {
  const { drive, address } = await startDrive();
  const client = await connect(address);
  drive.log.length = 0;
  await assert.rejects(client.block.read(-1, 1), RangeError);
  await assert.rejects(client.block.read(0, 0), RangeError);
  await assert.rejects(client.block.write(0, new Uint8Array(100)), /not whole blocks/);
  await assert.rejects(client.createRegion(0), RangeError);
  await assert.rejects(connect(address, { queueDepth: 1000 }), /queueDepth 1000; allowed/);
  await assert.rejects(connect(address, { hostNqn: 'me' }), /not of the form nqn/);
  assert.deepEqual(drive.log, []);
});

test('log pages, features and namespaces are decoded', async () => {
  const { drive, address } = await startDrive();
  const client = await connect(address);
  drive.admin = (command) => {
    const { opcode, cdw10 } = command.entry;
    if (opcode === adminOpcodes.getLogPage.opcode) command.give(new Uint8Array(((cdw10 >>> 16) + 1) * 4).fill(3));
    else if (opcode === adminOpcodes.getFeatures.opcode) command.complete(cdw10 + 1);
    else return false;
    return true;
  };
  assert.equal((await client.controller.smartLog()).availSpare, 3);
  assert.equal((await client.controller.logPage({ lid: 5, sizeBytes: 4096 })).length, 4096);
  assert.equal(await client.controller.getFeature('volatileWriteCache'), 7);
  await assert.rejects(client.controller.logPage({ lid: 5, sizeBytes: 6 }), RangeError);
  const { dw0 } = await client.passThrough({ queue: 'admin', opcode: adminOpcodes.getFeatures.opcode, cdw10: 41 });
  assert.equal(dw0, 42);
  assert.equal(kvOpcodes.flush.opcode, 0);
});
