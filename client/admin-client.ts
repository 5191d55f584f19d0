import { Client } from 'undici';
import {
  type AdminErrorBody,
  adminRoutes,
  type AdminRoutes,
  type FaultRequest,
  mediaTypes,
  type Route,
} from '../spec/admin-api.ts';
import { readSecretFile, readTrustedFile } from './secret-file.ts';
import { AdminRequestError, DriveUnreachableError } from './errors.ts';
import { parseAddress } from './address.ts';

type Values = Readonly<Record<string, unknown>>;
type ParametersOf<R> = R extends Route<infer P, infer _Q, infer _R, infer _B> ? P : never;
type QueryOf<R> = R extends Route<infer _P, infer Q, infer _R, infer _B> ? Q : never;
type ResponseOf<R> = R extends Route<infer _P, infer _Q, infer A, infer _B> ? A : never;

const REQUEST_TIMEOUT_MS = 60_000;

export interface AdminClientOptions {
  /** File with the token, mode 0600 or 0400, or `credential:NAME`. */
  readonly tokenFile?: string | undefined;
  /** Certificates to trust instead of the system's, PEM. */
  readonly caFile?: string | undefined;
}

/** The control plane over HTTP: one method per route of `spec/admin-api.ts`. Ids of sequences are `bigint`. */
export class AdminClient {
  readonly #client: Client;
  readonly #address: string;
  readonly #authorization: string | undefined;

  /**
   * `unix:PATH`, `tcp:HOST:PORT`, `http://HOST:PORT` or `https://HOST:PORT`. Connects with the first request. Error for a
   * file that is no good; RangeError for a token to be sent over a network in the clear.
   */
  constructor(address: string, options: AdminClientOptions = {}) {
    this.#address = address;
    const { tokenFile, caFile } = options;
    this.#authorization = tokenFile === undefined ? undefined : `Bearer ${readSecretFile(tokenFile, 'token').trim()}`;
    const timeouts = { headersTimeout: REQUEST_TIMEOUT_MS, bodyTimeout: REQUEST_TIMEOUT_MS };
    if (address.startsWith('https://')) {
      const connect = caFile === undefined ? {} : { ca: readTrustedFile(caFile, 'certificates') };
      this.#client = new Client(new URL(address).origin, { ...timeouts, connect });
      return;
    }
    if (tokenFile !== undefined && !isOnThisMachine(address))
      throw new RangeError(`a token goes over TLS only, not to ${address}`);
    if (address.startsWith('http://')) {
      this.#client = new Client(new URL(address).origin, timeouts);
      return;
    }
    const parsed = parseAddress(address);
    if (parsed.kind === 'unix') {
      this.#client = new Client('http://drive', { ...timeouts, socketPath: parsed.path });
    } else {
      const host = parsed.host.includes(':') ? `[${parsed.host}]` : parsed.host;
      this.#client = new Client(`http://${host}:${parsed.port}`, timeouts);
    }
  }

  /** Also of a drive that isn't ready. */
  health() {
    return this.#call('health', {}, {}, [503]);
  }

  drive() {
    return this.#call('drive');
  }

  async namespaces() {
    return (await this.#call('namespaces')).items;
  }

  /** One page of sequences above `after`. */
  sequences(query: { after?: bigint; limit?: number } = {}) {
    const after = query.after === undefined ? {} : { after: String(query.after) };
    return this.#call('sequences', {}, { ...after, ...(query.limit === undefined ? {} : { limit: query.limit }) });
  }

  sequence(id: bigint) {
    return this.#call('sequence', { id: String(id) });
  }

  async reclaim(id: bigint): Promise<void> {
    await this.#call('reclaim', { id: String(id) });
  }

  async connections() {
    return (await this.#call('connections')).items;
  }

  blocks(query: QueryOf<AdminRoutes['blocks']> = {}) {
    return this.#call('blocks', {}, query);
  }

  async faults() {
    return (await this.#call('faults')).items;
  }

  /** Refused with status 403 unless the daemon was started with --allow-faults. */
  addFault(request: FaultRequest) {
    return this.#call('addFault', {}, {}, [], request);
  }

  /** Ends a fault and takes its bit errors back. */
  async removeFault(id: string): Promise<void> {
    await this.#call('removeFault', { id });
  }

  scrub() {
    return this.#call('scrub');
  }

  /** Begins a pass over all pages in use, unless one that was asked for goes on. Resolves when it has begun. */
  startScrub() {
    return this.#call('startScrub');
  }

  flush() {
    return this.#call('flush');
  }

  /** The Prometheus text. */
  metrics(): Promise<string> {
    return this.#request(adminRoutes.metrics, {}, {}, []) as Promise<string>;
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  #call<K extends keyof AdminRoutes>(
    name: K,
    parameters?: ParametersOf<AdminRoutes[K]>,
    query?: QueryOf<AdminRoutes[K]>,
    alsoAccepted: readonly number[] = [],
    content?: object,
  ): Promise<ResponseOf<AdminRoutes[K]>> {
    const answer = this.#request(adminRoutes[name], parameters ?? {}, query ?? {}, alsoAccepted, content);
    return answer as Promise<ResponseOf<AdminRoutes[K]>>;
  }

  async #request(
    route: Route,
    parameters: Values,
    query: Values,
    alsoAccepted: readonly number[],
    content?: object,
  ): Promise<unknown> {
    const path = route.path.replace(/:([a-z]+)/g, (_, name: string) => encodeURIComponent(String(parameters[name])));
    const accept = route.response === undefined ? '*/*' : mediaTypes.json;
    const { statusCode, body } = await this.#send({
      method: route.method,
      path,
      query,
      headers: {
        accept,
        ...(this.#authorization === undefined ? {} : { authorization: this.#authorization }),
        ...(content === undefined ? {} : { 'content-type': mediaTypes.json }),
      },
      ...(content === undefined ? {} : { body: JSON.stringify(content) }),
    });
    const text = await body.text();
    if (statusCode !== 200 && !alsoAccepted.includes(statusCode)) throw refusal(statusCode, text);
    return route.response === undefined ? text : (JSON.parse(text) as unknown);
  }

  async #send(request: Parameters<Client['request']>[0]) {
    try {
      return await this.#client.request(request);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const reason =
        code === 'ENOENT' || code === 'ECONNREFUSED' ? 'nothing listens there; is the drive running?' : message;
      throw new DriveUnreachableError(`control plane at ${this.#address}: ${reason}`, { cause: error });
    }
  }
}

const isOnThisMachine = (address: string): boolean =>
  /^(unix:|(tcp:|http:\/\/)(localhost|127(\.\d+){3}|\[::1\])(:|\/|$))/.test(address);

function refusal(statusCode: number, text: string): AdminRequestError {
  try {
    return new AdminRequestError(statusCode, JSON.parse(text) as AdminErrorBody);
  } catch {
    return new AdminRequestError(statusCode, { code: 'internal', message: `HTTP status ${statusCode}` });
  }
}
