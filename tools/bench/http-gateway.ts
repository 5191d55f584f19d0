/**
 * Keys and values over HTTP, as a drive's control plane would give them if it had a route for them: Fastify, MessagePack, a
 * Unix socket, in a process of its own that fetches the rows from the drive through memory regions.
 *
 * Arguments: the drive's address, the sequence's id, a path to listen at. `GET /rows/PART/LAYER/HEAD/START/END` answers
 * with `{ rows }`, the bytes of one KV head's tokens.
 */
import fastify from 'fastify';
import { encode } from 'msgpackr';
import { DriveClient } from '../../client/index.ts';

const [address = '', id = '', path = ''] = process.argv.slice(2);
const client = await DriveClient.connect(address);
const sequence = await client.kv.open(BigInt(id));
const server = fastify();

interface Place {
  readonly part: 'keys' | 'values';
  readonly layer: string;
  readonly head: string;
  readonly start: string;
  readonly end: string;
}

server.get<{ Params: Place }>('/rows/:part/:layer/:head/:start/:end', async ({ params }, reply) => {
  const { part, layer, head, start, end } = params;
  const result = await sequence.readBack({
    part,
    layer: Number(layer),
    headMajor: true,
    firstHead: Number(head),
    headCount: 1,
    tokenStart: Number(start),
    tokenEnd: Number(end),
  });
  const { buffer, byteOffset, byteLength } = result[part]!;
  reply.type('application/x-msgpack');
  return encode({ rows: Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength) });
});

await server.listen({ path });
process.stdout.write('ready\n');
// Whoever started it is gone.
process.stdin.on('end', () => process.exit(0)).resume();
