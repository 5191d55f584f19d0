import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer, Server as TlsServer } from 'node:https';
import { chmod, lstat, unlink } from 'node:fs/promises';
import type { AddressInfo, Socket } from 'node:net';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { adminRoutes, type Route } from '../../spec/admin-api.ts';
import { limits } from '../../spec/limits.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import { LimitedLog } from '../base/limited-log.ts';
import type { Logger } from '../base/logger.ts';
import { type AccessRules, type BearerToken, refusalCodes, refusalOf } from './access.ts';
import type { DriveView } from './drive-view.ts';
import { HttpError, mapError } from './error-map.ts';
import { MetricsRegistry } from './metrics-registry.ts';
import { chooseRepresentation, msgpackNames, readMsgpack } from './representation.ts';
import { createHandlers, type Handlers, type RouteAnswer } from './routes.ts';

export interface AdminServerOptions {
  /** Unix socket to listen on; a stale one is replaced (the drive's lock says that nobody else serves it). */
  readonly socketPath: string;
  /** Mode of the socket; default 0600. */
  readonly socketMode?: number;
  /** Also listen here; port 0: any free port. `names`: what the drive may be called, besides its addresses. */
  readonly http?:
    | {
        readonly host: string;
        readonly port: number;
        readonly names?: readonly string[];
        /** Metrics are shown without a token, too. */
        readonly openMetrics?: boolean;
      }
    | undefined;
  /** With them the TCP listener wants a token, or speaks TLS. */
  readonly secrets?: HttpSecrets | undefined;
  /** A request, or the first byte of one, has this long to arrive; default in `spec/limits.ts`. */
  readonly requestTimeoutMs?: number;
}

/** What the TCP listener holds against others; may be replaced while it listens. */
export interface HttpSecrets {
  readonly token: BearerToken | undefined;
  /** Certificate chain and private key, PEM. */
  readonly tls: { readonly cert: string; readonly key: string } | undefined;
}

const noSecrets: HttpSecrets = { token: undefined, tls: undefined };

/**
 * The control plane: the routes of `spec/admin-api.ts` over HTTP/1.1, on a Unix socket and optionally on TCP. Whoever can
 * open the socket may do everything; over TCP a token is asked for (`access.ts`).
 */
export class AdminServer {
  readonly #options: AdminServerOptions;
  readonly #logger: Logger;
  readonly #handlers: Handlers;
  readonly #contentTypeOfMetrics: string;
  readonly #apps: FastifyInstance[] = [];
  readonly #refusals: LimitedLog;
  readonly #refusedCounts = new Map<string, number>(refusalCodes.map((code) => [code, 0]));
  #secrets: HttpSecrets;
  /** One for each address that a name stands for. */
  readonly #tlsServers: TlsServer[] = [];
  #httpAddress: AddressInfo | undefined;

  constructor(options: AdminServerOptions, modules: { view: DriveView; clock: Clock; logger: Logger }) {
    this.#options = options;
    this.#logger = modules.logger;
    this.#refusals = new LimitedLog(modules);
    this.#secrets = options.secrets ?? noSecrets;
    const registry = new MetricsRegistry(() => modules.view.statistics());
    this.#contentTypeOfMetrics = registry.contentType;
    this.#handlers = createHandlers({ view: modules.view, clock: modules.clock, registry });
  }

  /** Where it listens on TCP, once started. */
  get httpAddress(): { readonly host: string; readonly port: number } | undefined {
    return this.#httpAddress && { host: this.#httpAddress.address, port: this.#httpAddress.port };
  }

  /** Requests that were not let in, by code. */
  get refusedCounts(): ReadonlyMap<string, number> {
    return this.#refusedCounts;
  }

  /** From the next request, and the next TLS handshake, on. Whether it speaks TLS at all can not change. */
  replaceSecrets(secrets: HttpSecrets): void {
    this.#secrets = secrets;
    const { tls } = secrets;
    if (tls === undefined) return;
    for (const server of this.#tlsServers) server.setSecureContext({ ...tls, minVersion: TLS_VERSION_MIN });
  }

  /** Listens, everywhere or nowhere. DriveError addressInUse; invalidField if it cannot for another reason. */
  async start(): Promise<void> {
    const { socketPath, socketMode = 0o600, http } = this.#options;
    await removeStaleSocket(socketPath);
    try {
      await this.#listen(this.#createApp(socketRules), { path: socketPath }, `unix:${socketPath}`);
      await chmod(socketPath, socketMode);
      if (http === undefined) return;
      const { host, port, names = [], openMetrics = false } = http;
      const server = this.#createApp({ by: 'token', names, openMetrics }, this.#secrets.tls);
      const app = await this.#listen(server, { host, port }, `${host}:${port}`);
      this.#httpAddress = app.server.address() as AddressInfo;
    } catch (error) {
      // A socket that goes on listening would keep the process alive.
      await this.close();
      throw error;
    }
  }

  /** Stops listening, lets running requests end, and drops idle connections. */
  async close(): Promise<void> {
    const apps = this.#apps.splice(0);
    await Promise.all(apps.map((app) => app.close()));
  }

  async #listen(
    app: FastifyInstance,
    where: { path: string } | { host: string; port: number },
    name: string,
  ): Promise<FastifyInstance> {
    try {
      await app.listen(where);
    } catch (error) {
      await app.close();
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EADDRINUSE') throw new DriveError('addressInUse', `HTTP on ${name}`, { cause: error });
      throw new DriveError('invalidField', `cannot listen for HTTP on ${name}: ${code ?? String(error)}`, {
        cause: error,
      });
    }
    this.#apps.push(app);
    return app;
  }

  #createApp(rules: AccessRules, tls?: HttpSecrets['tls']): FastifyInstance {
    const app = fastify({
      logger: false,
      bodyLimit: limits.adminBodyBytesMax,
      serverFactory: (handler) => this.#createServer(handler, tls),
      forceCloseConnections: 'idle',
      routerOptions: { maxParamLength: 64, ignoreTrailingSlash: true },
      // Unknown properties are refused, not dropped without a word.
      ajv: { customOptions: { removeAdditional: false, coerceTypes: true, allErrors: false } },
      clientErrorHandler: answerMalformed,
      // A path that is none comes past the hooks.
      frameworkErrors: (error, request, reply) =>
        void this.#answerError(this.#refusal(request, reply, rules) ?? error, request, reply),
    });
    app.addContentTypeParser(msgpackNames, { parseAs: 'buffer' }, (_request, body, done) => {
      try {
        done(null, readMsgpack(body as Buffer));
      } catch (error) {
        done(error as Error);
      }
    });
    app.addHook('onRequest', (request, reply, done) => done(this.#refusal(request, reply, rules)));
    app.setErrorHandler((error, request, reply) => this.#answerError(error, request, reply));
    app.setNotFoundHandler((request, reply) => this.#answerError(notFound(request), request, reply));
    for (const [key, route] of Object.entries(adminRoutes)) {
      this.#addRoute(app, route, this.#handlers[key as keyof Handlers] as AnyHandler);
    }
    return app;
  }

  #addRoute(app: FastifyInstance, route: Route, handler: AnyHandler): void {
    app.route({
      method: route.method,
      url: route.path,
      schema: {
        params: route.parameters.json,
        querystring: route.query.json,
        ...(route.changes && route.method !== 'DELETE' ? { body: route.body?.json ?? emptyBody } : {}),
      },
      handler: async (request, reply) => {
        const representation = route.response && chooseRepresentation(request.headers.accept);
        const { status, body } = await handler(request.params, request.query, request.body);
        reply.code(status);
        if (!representation) return reply.type(this.#contentTypeOfMetrics).send(body);
        return reply.type(representation.mediaType).send(representation.write(body));
      },
    });
  }

  #createServer(handler: RequestListener, tls: HttpSecrets['tls']): Server {
    const { requestTimeoutMs = limits.adminRequestTimeoutMs } = this.#options;
    const timeouts = {
      requestTimeout: requestTimeoutMs,
      headersTimeout: requestTimeoutMs,
      keepAliveTimeout: limits.adminIdleTimeoutMs,
      // Node looks for late requests at this interval only.
      connectionsCheckingInterval: Math.ceil(requestTimeoutMs / 4),
    };
    const secure = { ...tls, minVersion: TLS_VERSION_MIN, handshakeTimeout: requestTimeoutMs } as const;
    const server =
      tls === undefined ? createServer(timeouts, handler) : createTlsServer({ ...timeouts, ...secure }, handler);
    server.maxConnections = limits.adminConnectionCountMax;
    if (server instanceof TlsServer) this.#tlsServers.push(server);
    return server;
  }

  /** Before anything of a request is looked at: may it come in? */
  #refusal(request: FastifyRequest, reply: FastifyReply, rules: AccessRules): HttpError | undefined {
    reply.headers(protectiveHeaders);
    const { host, origin, authorization } = request.headers;
    const path = request.url.split('?', 1)[0] as string;
    const refusal = refusalOf(
      { method: request.method, path, host, origin, authorization },
      rules,
      this.#secrets.token,
    );
    if (refusal === undefined) return undefined;
    const { code } = refusal;
    this.#refusedCounts.set(code, (this.#refusedCounts.get(code) ?? 0) + 1);
    const peer = request.socket.remoteAddress ?? 'unix';
    this.#refusals.warn({ peer, method: request.method, path, code }, 'HTTP request refused');
    if (code === 'tokenRequired') reply.header('www-authenticate', 'Bearer realm="attndrive"');
    return refusal;
  }

  #answerError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
    const { http, body, unexpected } = mapError(error);
    if (unexpected) this.#logger.error({ err: error, method: request.method, url: request.url }, 'request failed');
    const representation = representationForError(request);
    return reply.code(http).type(representation.mediaType).send(representation.write(body));
  }
}

const socketRules: AccessRules = { by: 'socket', names: [], openMetrics: false };
const TLS_VERSION_MIN = 'TLSv1.2';

/** No cache keeps an answer, no browser guesses what it is, or shows it inside of another page. */
const protectiveHeaders = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
} as const;

type AnyHandler = (
  parameters: unknown,
  query: unknown,
  body: unknown,
) => RouteAnswer<unknown> | Promise<RouteAnswer<unknown>>;

/** Of routes that take no body: an empty object is accepted, so that clients may always send one. */
const emptyBody = { type: ['object', 'null'], additionalProperties: false, properties: {} };

function representationForError(request: FastifyRequest) {
  try {
    return chooseRepresentation(request.headers.accept);
  } catch {
    return chooseRepresentation(undefined);
  }
}

const routePatterns = Object.values(adminRoutes).map((route) => ({
  method: route.method,
  pattern: new RegExp(`^${route.path.replace(/:[a-z]+/g, '[^/]+')}/?$`),
}));

function notFound(request: FastifyRequest): HttpError {
  const path = request.url.split('?', 1)[0] ?? '';
  const methods = routePatterns.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method);
  if (methods.length > 0) return new HttpError('methodNotAllowed', `${request.method} ${path}`, methods.join(', '));
  const paths = [...new Set(Object.values(adminRoutes).map((route) => route.path))];
  return new HttpError('unknownPath', path, paths.join(', '));
}

/** What is not even HTTP: the answer goes straight to the socket. */
function answerMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  // A TLS handshake that failed or did not end has no way for an answer.
  const isHttp = /^(HPE_|ERR_HTTP_)/.test(error.code ?? '');
  if (!isHttp || !socket.writable) {
    socket.destroy();
    return;
  }
  const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const status = late ? '408 Request Timeout' : '400 Bad Request';
  const { body } = mapError(new HttpError(late ? 'requestTimeout' : 'malformedBody', late ? 'closed' : 'not HTTP/1.1'));
  const text = JSON.stringify(body);
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n` +
      `connection: close\r\n\r\n${text}`,
  );
}

async function removeStaleSocket(path: string): Promise<void> {
  const entry = await lstat(path).catch(() => undefined);
  if (entry === undefined) return;
  if (!entry.isSocket()) {
    throw new DriveError('invalidField', `${path} is not a socket; remove it, or choose another runtime folder`);
  }
  await unlink(path);
}
