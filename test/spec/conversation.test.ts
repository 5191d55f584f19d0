/**
 * The byte blocks of the pages, said to the drive's own transport and controller, in the order that the pages tell.
 * This is what somebody does who writes a host from the pages alone, so nothing here comes from the encoders.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { test, type TestContext } from 'node:test';
import { createRig } from '../controller/rig.ts';
import { pageBlocks } from './page-blocks.ts';

const folder = new URL('../../../spec/', import.meta.url);
const blocks = new Map(
  readdirSync(folder)
    .filter((name) => name.endsWith('.md'))
    .flatMap((page) => pageBlocks(page, readFileSync(new URL(page, folder), 'utf8')))
    .map(({ name, bytes }) => [name, Buffer.from(bytes)]),
);
function bytesOf(name: string): Buffer {
  const bytes = blocks.get(name);
  assert(bytes !== undefined, `the pages have no block ${name}`);
  return bytes;
}

/** A socket, and the bytes that came from it. */
class Line {
  readonly #socket: Socket;
  #received = Buffer.alloc(0);

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  static async open(t: TestContext, path: string): Promise<Line> {
    const socket = connect({ path });
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    return new Line(socket);
  }

  say(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  /** The next PDU: bytes 4 to 7 say how long it is. */
  async hear(): Promise<Buffer> {
    for (;;) {
      const { length } = this.#received;
      const plen = length >= 8 ? this.#received.readUInt32LE(4) : Number.POSITIVE_INFINITY;
      if (length >= plen) {
        const pdu = this.#received.subarray(0, plen);
        this.#received = this.#received.subarray(plen);
        return pdu;
      }
      const [chunk] = (await once(this.#socket, 'data')) as [Buffer];
      this.#received = Buffer.concat([this.#received, chunk]);
    }
  }
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const SUCCESS = 0;
const statusOf = (completion: Buffer): number => completion.readUInt16LE(22);

/** Property Get of CSTS, as transport.md lays it out. */
function propertyGetCsts(): Buffer {
  const pdu = Buffer.from(bytesOf('enableController'));
  pdu.writeUInt8(0x04, 12);
  pdu.writeUInt32LE(0x1c, 52);
  pdu.writeUInt32LE(0, 56);
  return pdu;
}

/** Connect of I/O queue 1 with 32 entries, as transport.md says how it differs from that of the admin queue. */
function connectIo(controllerId: number): Buffer {
  const pdu = Buffer.from(bytesOf('connectAdmin'));
  pdu.writeUInt16LE(1, 50);
  pdu.writeUInt32LE(0, 56);
  pdu.writeUInt16LE(controllerId, 88);
  return pdu;
}

test('the blocks of the pages are a conversation that the drive has', async (t) => {
  const rig = await createRig(t);
  const path = rig.unix.replace(/^unix:/, '');
  const admin = await Line.open(t, path);
  admin.say(bytesOf('icReq'));
  assert.equal(hex(await admin.hear()), hex(bytesOf('icResp')));
  admin.say(bytesOf('connectAdmin'));
  const connected = await admin.hear();
  assert.equal(statusOf(connected), SUCCESS);
  admin.say(bytesOf('enableController'));
  assert.equal(statusOf(await admin.hear()), SUCCESS);
  admin.say(propertyGetCsts());
  assert.equal((await admin.hear()).readUInt32LE(8), 1, 'CSTS.RDY');

  admin.say(bytesOf('regionCreate'));
  const region = await admin.hear();
  assert.equal(region.readUInt8(0), 7, 'C2HData');
  assert.equal(region.readUInt16LE(24), 1, 'version');
  assert.equal(region.readBigUInt64LE(24 + 8), 1n << 20n, 'size');
  assert.equal(statusOf(await admin.hear()), SUCCESS);

  const queue = await Line.open(t, path);
  queue.say(bytesOf('icReq'));
  assert.equal(hex(await queue.hear()), hex(bytesOf('icResp')));
  queue.say(connectIo(connected.readUInt16LE(8)));
  assert.equal(statusOf(await queue.hear()), SUCCESS);
  for (const command of ['kvCreate', 'kvAppend']) {
    queue.say(bytesOf(command));
    assert.equal(hex(await queue.hear()), hex(bytesOf(`${command}Done`)), command);
  }
  queue.say(bytesOf('attendExchange'));
  const answer = await queue.hear();
  const expected = bytesOf('attendExchangeData');
  // The log-sum-exp may differ in its last bits.
  assert.equal(hex(answer.subarray(0, 60)), hex(expected.subarray(0, 60)));
  assert(Math.abs(answer.readFloatLE(60) - expected.readFloatLE(60)) < 1e-6);
  assert.equal(hex(await queue.hear()), hex(bytesOf('attendExchangeDone')));

  queue.say(bytesOf('nvmRead'));
  const block = await queue.hear();
  assert.equal(hex(block.subarray(0, 24)), hex(bytesOf('c2hDataOfRead')));
  assert.equal(block.length, 24 + 4096);
  assert.equal(statusOf(await queue.hear()), SUCCESS);
});
