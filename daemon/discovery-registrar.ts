import { DiscoveryClient } from '../client/discovery-client.ts';
import type { Clock, Timer } from './base/clock.ts';
import type { Logger } from './base/logger.ts';
import type { NetworkAddress } from './commands/contract.ts';
import { isWildcard } from './discovery/own-records.ts';

export interface RegistrarOptions {
  readonly services: readonly NetworkAddress[];
  readonly nqn: string;
  readonly listeners: readonly NetworkAddress[];
  /** What hosts are to be told instead of the addresses of the listeners. */
  readonly advertisedHost: string | undefined;
}

/** A drive that stops waits no longer than this for a service that does not answer. */
const CONNECT_TIMEOUT_MS = 3000;
const RETRY_MS_MIN = 500;
const RETRY_MS_MAX = 15_000;

/** Keeps a drive registered with discovery services: connects, registers, and begins again when the connection is lost. */
export class DiscoveryRegistrar {
  readonly #services: readonly ServiceRegistration[];

  constructor(options: RegistrarOptions, modules: { clock: Clock; logger: Logger }) {
    this.#services = options.services.map((service) => new ServiceRegistration(service, options, modules));
  }

  /** Takes the registrations back, which is what the end of a connection does. */
  async close(): Promise<void> {
    await Promise.all(this.#services.map((service) => service.close()));
  }
}

class ServiceRegistration {
  readonly #address: string;
  readonly #options: RegistrarOptions;
  readonly #clock: Clock;
  readonly #logger: Logger;
  #client: DiscoveryClient | undefined;
  #isClosed = false;
  #wake: () => void = () => undefined;
  #timer: Timer | undefined;

  constructor({ host, port }: NetworkAddress, options: RegistrarOptions, modules: { clock: Clock; logger: Logger }) {
    this.#address = `tcp:${host.includes(':') ? `[${host}]` : host}:${port}`;
    this.#options = options;
    this.#clock = modules.clock;
    this.#logger = modules.logger;
    void this.#run();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#wake();
    await this.#client?.close();
  }

  /** One connection after another, with growing pauses between those that come to nothing. */
  async #run(): Promise<void> {
    let retryMs = RETRY_MS_MIN;
    let isKnownBad = false;
    while (!this.#isClosed) {
      try {
        const client = await this.#register();
        retryMs = RETRY_MS_MIN;
        isKnownBad = false;
        this.#logger.info({ service: this.#address }, 'registered with the discovery service');
        const { message } = await client.disconnected;
        if (!this.#isClosed) this.#logger.warn({ service: this.#address, reason: message }, 'discovery service lost');
      } catch (error) {
        const reason = (error as Error).message;
        // Said once: a service that stays away must not fill the log.
        if (!this.#isClosed && !isKnownBad) this.#logger.warn({ service: this.#address, reason }, 'not registered');
        isKnownBad = true;
        await this.#client?.close();
      }
      if (!this.#isClosed) await this.#pause(retryMs);
      retryMs = Math.min(2 * retryMs, RETRY_MS_MAX);
    }
  }

  async #register(): Promise<DiscoveryClient> {
    const { nqn, listeners, advertisedHost } = this.#options;
    const connectTimeoutMs = CONNECT_TIMEOUT_MS;
    const client = await DiscoveryClient.connect(this.#address, { hostNqn: nqn, connectTimeoutMs });
    this.#client = client;
    if (this.#isClosed) await client.close();
    const addresses = listeners.map(({ host, port }) => ({
      host: advertisedHost ?? (isWildcard(host) ? (client.localHost ?? host) : host),
      port,
    }));
    await client.register({ nqn, addresses });
    return client;
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      this.#timer = this.#clock.setTimer(delayMs, resolve);
    });
  }
}
