/**
 * The control plane over its socket: requests of every route, nearly right, several on a connection, whole or in pieces.
 *
 * Whatever comes: every request that can be told apart is answered, in its order, with a status of the table; none with 500, none
 * with a stack or a path of ours; what succeeds was asked of a route that there is, with its method; the next connection is
 * served as before.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pack } from 'msgpackr';
import { adminRoutes, httpErrorTable } from '../../../spec/admin-api.ts';
import { errorTable } from '../../../spec/errors.ts';
import { AdminServer } from '../../../daemon/admin/admin-server.ts';
import { systemClock } from '../../../daemon/base/clock.ts';
import { silentLogger } from '../../../daemon/base/logger.ts';
import { FakeDriveView } from '../../admin/fake-drive-view.ts';
import type { Prng } from '../../sim/prng.ts';
import { joined, mutateBytes, mutateLength } from '../mutate.ts';
import type { Session, SessionContext, Target } from '../target.ts';

const REQUESTS_MAX = 3;
/** What has not come by then will not come: a connection that the host has ended its side of is closed at once. */
const ANSWER_MS = 15_000;

export interface HttpInput {
  readonly bytes: Uint8Array;
  /** Sizes of the pieces that it is sent in; empty: at once. */
  readonly pieces: readonly number[];
}

const routes = Object.values(adminRoutes);
const statuses = new Set([
  200,
  503,
  ...Object.values(httpErrorTable).map(({ http }) => http),
  ...Object.values(errorTable).map(({ http }) => http),
]);
const methods = ['GET', 'POST', 'DELETE', 'PUT', 'HEAD', 'OPTIONS', 'PATCH', 'TRACE', 'GETX'] as const;
const oddTexts = [
  '',
  '0',
  '-1',
  '1e9',
  '%00',
  '%zz',
  '..',
  '../..',
  '18446744073709551615',
  '99999999999999999999',
  'ü',
  'null',
] as const;

function drawValue(random: Prng, depth = 0): unknown {
  switch (random.below(depth > 2 ? 5 : 7)) {
    case 0:
      return random.pick([0, 1, -1, 1.5, 2 ** 53, 1e300]);
    case 1:
      return random.pick(oddTexts);
    case 2:
      return random.chance(0.5);
    case 3:
      return null;
    case 4:
      return 'x'.repeat(random.below(random.chance(0.02) ? 70_000 : 20));
    case 5:
      return Array.from({ length: random.below(4) }, () => drawValue(random, depth + 1));
    default: {
      const keys = ['kind', 'where', 'count', 'bits', '__proto__', 'constructor', 'sequence', 'page', 'lba'];
      return Object.fromEntries(
        Array.from({ length: random.below(4) }, () => [random.pick(keys), drawValue(random, depth + 1)]),
      );
    }
  }
}

/** Of POST /faults, nearly right. */
function drawFault(random: Prng): unknown {
  const kind = random.pick(['bit-errors', 'read-failure', 'program-failure', 'erase-failure', 'nothing']);
  const where = random.pick<unknown>([
    undefined,
    { sequence: '7', layer: 0, head: 1, part: 'V', group: 3 },
    { lba: 5 },
    { page: 9 },
  ]);
  const fault: Record<string, unknown> = { kind, where, count: 1 + random.below(3), bits: random.below(20) };
  if (random.chance(0.3)) fault[random.pick(['kind', 'where', 'count', 'bits', 'more'])] = drawValue(random);
  return fault;
}

function drawPath(random: Prng, path: string): string {
  const text = path.replace(/:[a-z]+/g, () =>
    random.chance(0.6) ? String(random.pick([1, 3, 7])) : random.pick(oddTexts),
  );
  const query = random.chance(0.25)
    ? `?${random.pick(['limit', 'after', 'state', 'more'])}=${random.chance(0.5) ? random.below(2000) : random.pick(oddTexts)}`
    : '';
  return `${text === '' ? '/' : text}${random.chance(0.05) ? random.pick(oddTexts) : ''}${query}`;
}

function drawRequest(random: Prng): Uint8Array {
  const route = random.pick(routes);
  const method = random.chance(0.85) ? route.method : random.pick(methods);
  const hasBody = (method === 'POST' || method === 'PUT' || method === 'PATCH') && random.chance(0.9);
  const isMsgpack = random.chance(0.3);
  const value = route.path === adminRoutes.addFault.path && random.chance(0.8) ? drawFault(random) : drawValue(random);
  let body: Uint8Array = hasBody
    ? isMsgpack
      ? pack(value)
      : Buffer.from(JSON.stringify(value) ?? '')
    : new Uint8Array(0);
  if (random.chance(0.1)) mutateBytes(random, (body = Uint8Array.from(body)));
  const headers = [
    `${method} ${encodeURI(drawPath(random, route.path)).replaceAll('%25', '%')} HTTP/1.1`,
    'host: drive',
  ];
  if (random.chance(0.3))
    headers.push(`accept: ${random.pick(['*/*', 'application/msgpack', 'text/html', 'application/json;q=x', ','])}`);
  if (random.chance(0.05)) headers.push(`origin: http://${random.pick(oddTexts)}`);
  if (random.chance(0.05)) headers.push(`authorization: Bearer ${'a'.repeat(random.below(50))}`);
  if (random.chance(0.03)) headers.push(`x-${'y'.repeat(random.below(30_000))}: z`);
  const type = random.pick(['application/json', 'application/json; charset=utf-8', 'text/plain', '']);
  if (hasBody)
    headers.push(
      `content-type: ${isMsgpack ? 'application/msgpack' : random.chance(0.85) ? 'application/json' : type}`,
    );
  if (hasBody) headers.push(`content-length: ${random.chance(0.95) ? body.length : random.below(100)}`);
  return joined([Buffer.from(`${headers.join('\r\n')}\r\n\r\n`), body]);
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Answers one behind the other. */
function answersIn(bytes: Buffer): Answer[] {
  const answers: Answer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = bytes.indexOf('\r\n\r\n', at);
    assert.ok(end >= 0, `an answer without an end of its headers: ${bytes.subarray(at, at + 200).toString()}`);
    const head = bytes.subarray(at, end).toString('latin1');
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1]);
    assert.ok(
      status >= 100,
      `not an answer: ${head.slice(0, 200)}, behind ${bytes.subarray(Math.max(0, at - 400), at).toString()}`,
    );
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    // What follows a HEAD is the next answer, or nothing.
    const isBare = bytes.subarray(end + 4, end + 9).toString('latin1') === 'HTTP/' || end + 4 === bytes.length;
    const isChunked = /transfer-encoding: chunked/i.test(head);
    const bodyEnd = isBare ? end + 4 : isChunked ? endOfChunks(bytes, end + 4) : end + 4 + length;
    answers.push({ status, text: bytes.subarray(end + 4, bodyEnd).toString('utf8') });
    at = bodyEnd;
  }
  return answers;
}

function endOfChunks(bytes: Buffer, start: number): number {
  for (let at = start; ; ) {
    const lineEnd = bytes.indexOf('\r\n', at);
    const size = Number.parseInt(bytes.subarray(at, lineEnd).toString('latin1'), 16);
    assert.ok(size >= 0, 'a chunk says how long it is');
    at = lineEnd + 2 + size + 2;
    if (size === 0) return at;
  }
}

class HttpSession implements Session<HttpInput> {
  readonly #context: SessionContext;
  readonly #folder: string;
  readonly #server: AdminServer;

  constructor(context: SessionContext, folder: string, server: AdminServer) {
    this.#context = context;
    this.#folder = folder;
    this.#server = server;
  }

  draw(random: Prng): HttpInput {
    let bytes = joined(Array.from({ length: 1 + random.below(REQUESTS_MAX) }, () => drawRequest(random)));
    if (random.chance(0.12)) mutateBytes(random, bytes, 1 + random.below(4));
    if (random.chance(0.05)) bytes = mutateLength(random, bytes);
    const pieces = random.chance(0.1) ? [1 + random.below(40), 1 + random.below(400)] : [];
    return { bytes, pieces };
  }

  async play({ bytes, pieces }: HttpInput): Promise<void> {
    const answers = answersIn(await this.#exchange(bytes, pieces));
    // What is cut short may be no request at all.
    this.#context.tally.count(answers.some(({ status, text }) => status !== 400 || !text.includes('malformedBody')));
    for (const { status, text } of answers) this.#check(status, text);
    const known = bytes.length > 0 && routes.some(({ path }) => Buffer.from(bytes).includes(path.split('/:', 1)[0]!));
    const succeeded = answers.filter(({ status }) => status === 200);
    assert.ok(
      succeeded.length === 0 || known,
      `200, and no route is named: ${Buffer.from(bytes).toString('latin1').slice(0, 300)}`,
    );
  }

  #check(status: number, text: string): void {
    const shown =
      this.#context.bug === 'tellsStack' && status === 404 ? `${text} at Server.answer (/srv/x.ts:1:2)` : text;
    assert.ok(statuses.has(status) && status !== 500, `status ${status}: ${text.slice(0, 300)}`);
    assert.ok(
      !/\bat .*\(?.*\.(ts|js):\d+/.test(shown) && !shown.includes('node_modules'),
      `a stack: ${shown.slice(0, 300)}`,
    );
  }

  async #exchange(bytes: Uint8Array, pieces: readonly number[]): Promise<Buffer> {
    const socket = connect({ path: join(this.#folder, 'admin.sock'), allowHalfOpen: true });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    // A connection that is answered before all of it was read may be reset.
    socket.on('error', () => undefined);
    const closed = new Promise<void>((resolve) => void socket.once('close', () => resolve()));
    const timer = setTimeout(() => socket.destroy(new Error('late')), ANSWER_MS);
    let at = 0;
    for (const size of pieces) {
      socket.write(bytes.subarray(at, at + size));
      at += size;
      await new Promise((resolve) => setImmediate(resolve));
    }
    socket.end(bytes.subarray(at));
    socket.on('end', () => socket.destroy());
    await closed;
    clearTimeout(timer);
    return Buffer.concat(chunks);
  }

  async close(): Promise<void> {
    const served = await this.#exchange(
      Buffer.from('GET /health HTTP/1.1\r\nhost: drive\r\nconnection: close\r\n\r\n'),
      [],
    );
    assert.equal(answersIn(served)[0]?.status, 200, 'the next connection is served');
    await this.#server.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

export const httpTarget: Target<HttpInput> = {
  name: 'http',
  what: 'the control plane over its socket, over a drive of three sequences',
  framing: 'an answer came that is about what was asked, not about HTTP',
  share: 0.05,
  casesPerSession: 200,
  smokeCases: 400,
  bugs: { tellsStack: 'an answer of 404 that tells where it was made' },
  open: async (context) => {
    const folder = mkdtempSync(join(tmpdir(), 'fuzz-http-'));
    const options = { socketPath: join(folder, 'admin.sock') };
    const server = new AdminServer(options, { view: new FakeDriveView(), clock: systemClock, logger: silentLogger });
    await server.start();
    return new HttpSession(context, folder, server);
  },
};
