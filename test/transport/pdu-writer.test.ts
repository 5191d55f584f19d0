/** When encoded PDUs are given to the socket. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { capsuleResp } from '../../spec/pdu.ts';
import { PduWriter } from '../../daemon/transport/pdu-writer.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function writerOn(t: TestContext): Promise<{ writer: PduWriter; received: () => Promise<Buffer> }> {
  const folder = mkdtempSync(join(tmpdir(), 'pdu-writer-'));
  const path = join(folder, 'socket');
  const server = createServer();
  server.listen(path);
  const far = connect(path);
  const [near] = (await once(server, 'connection')) as [Socket];
  t.after(() => {
    far.destroy();
    near.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  });
  const writer = new PduWriter({ socket: near, checksum: () => 0, onFlushed: () => undefined });
  const received = async (): Promise<Buffer> => {
    near.end();
    const pieces: Buffer[] = [];
    for await (const piece of far) pieces.push(piece as Buffer);
    return Buffer.concat(pieces);
  };
  return { writer, received };
}

const idsIn = (bytes: Buffer): number[] =>
  Array.from({ length: bytes.length / capsuleResp.sizeBytes }, (_, i) =>
    bytes.readUInt16LE(i * capsuleResp.sizeBytes + capsuleResp.sizeBytes - 4),
  );

test('of a large batch the first completions leave before the rest, in order', async (t) => {
  const { writer, received } = await writerOn(t);
  const sent: number[] = [];
  writer.beginBatch();
  for (let id = 0; id < 32; id++) {
    writer.capsuleResp(0, 0, 0, id, 0);
    sent.push(writer.sentBytes / capsuleResp.sizeBytes);
  }
  assert.deepEqual(sent, [...Array<number>(7).fill(0), ...Array<number>(25).fill(8)]);
  writer.flush();
  assert.equal(writer.sentBytes, 32 * capsuleResp.sizeBytes);
  assert.deepEqual(
    idsIn(await received()),
    Array.from({ length: 32 }, (_, id) => id),
  );
});

test('a batch leaves with flush; without one completions leave when the event loop turns', async (t) => {
  const { writer, received } = await writerOn(t);
  writer.beginBatch();
  for (let id = 0; id < 3; id++) writer.capsuleResp(0, 0, 0, id, 0);
  await turn();
  assert.equal(writer.sentBytes, 0);
  writer.flush();
  assert.equal(writer.sentBytes, 3 * capsuleResp.sizeBytes);
  writer.capsuleResp(0, 0, 0, 3, 0);
  assert.equal(writer.sentBytes, 3 * capsuleResp.sizeBytes);
  await turn();
  assert.equal(writer.sentBytes, 4 * capsuleResp.sizeBytes);
  assert.deepEqual(idsIn(await received()), [0, 1, 2, 3]);
});
