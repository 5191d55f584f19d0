import { DISCOVERY_PORT } from '../spec/discovery.ts';
import { limits } from '../spec/limits.ts';
import { systemClock } from './base/clock.ts';
import { systemRandom } from './base/random.ts';
import { HostAccess } from './host-access.ts';
import { ThreadedKeyExchange } from './hosts/threaded-key-exchange.ts';
import { crc32c } from './base/crc32c.ts';
import { DriveError } from './base/errors.ts';
import { createLogger, type Logger, type LogLevel } from './base/logger.ts';
import { address, logLevels } from './config.ts';
import { createDiscoverySubsystem, type Subsystem } from './controller/subsystem.ts';
import { DiscoveryDirectory } from './discovery/directory.ts';
import { readRecords } from './discovery/records-file.ts';
import { EXIT_SOFTWARE, stopSignal, version } from './main.ts';
import { Transport } from './transport/listener.ts';

/** What may be given to a discovery service; everything has a default. */
export interface DiscoveryDaemonOptions {
  /** NVMe/TCP. Default 127.0.0.1:8009. */
  readonly tcp?: string | undefined;
  /** File of fixed records, read again at SIGHUP. Default: none. */
  readonly records?: string | undefined;
  /** File of the hosts that may connect, drives that register included; read again at SIGHUP. Default: every host may. */
  readonly hosts?: string | undefined;
  readonly logLevel?: string | undefined;
}

const MODEL_NUMBER = 'attndrive discovery service';
const SERIAL_NUMBER = 'DISCOVERY';

/** The parts of a discovery service. */
export class DiscoveryService {
  readonly directory: DiscoveryDirectory;
  readonly #subsystem: Subsystem;
  readonly #transport: Transport;
  readonly #logger: Logger;
  readonly #recordsPath: string | undefined;
  readonly #hosts: HostAccess;
  readonly #keyExchange = new ThreadedKeyExchange();

  constructor(
    options: { recordsPath: string | undefined; hostsPath: string | undefined; firmware: string },
    modules: { logger: Logger; onFatal: (error: unknown) => void },
  ) {
    const { logger, onFatal } = modules;
    const clock = systemClock;
    this.#logger = logger;
    this.#recordsPath = options.recordsPath;
    this.#hosts = new HostAccess({ path: options.hostsPath }, { logger });
    this.directory = new DiscoveryDirectory({ limits }, { onChange: () => this.#subsystem.discoveryChanged() });
    const identity = { serial: SERIAL_NUMBER, model: MODEL_NUMBER, firmware: options.firmware };
    const discovery = this.directory;
    this.#subsystem = createDiscoverySubsystem(
      { identity, limits },
      {
        clock,
        random: systemRandom,
        logger,
        onFatal,
        discovery,
        hosts: this.#hosts.directory,
        keyExchange: this.#keyExchange,
      },
    );
    this.#transport = new Transport({ limits }, { subsystem: this.#subsystem, clock, logger, checksum: crc32c });
  }

  /** Returns where it listens: `tcp:HOST:PORT`. DriveError for an address or records that are no good. */
  async start(tcp: { host: string; port: number }): Promise<string> {
    if (this.#recordsPath !== undefined) this.directory.setFixed(readRecords(this.#recordsPath));
    this.#hosts.warnIfOpen(tcp);
    return this.#transport.listen({ kind: 'tcp', ...tcp });
  }

  /** Reads hosts and records again; what is wrong with them is said, and those of before stay. */
  reload(): void {
    if (this.#hosts.reload()) this.#subsystem.hostsChanged();
    if (this.#recordsPath === undefined) return;
    try {
      const records = readRecords(this.#recordsPath);
      this.directory.setFixed(records);
      this.#logger.info({ path: this.#recordsPath, recordCount: records.length }, 'records read again');
    } catch (error) {
      if (!(error instanceof DriveError)) throw error;
      this.#logger.error({ reason: error.message }, 'records not read again');
    }
  }

  async stop(): Promise<void> {
    await this.#keyExchange.close();
    await this.#subsystem.close();
    await this.#transport.close();
  }
}

/** Runs a discovery service until SIGTERM or SIGINT. One line on standard output says when it is ready and where. */
export async function runDiscovery(options: DiscoveryDaemonOptions): Promise<void> {
  const logLevel = options.logLevel ?? 'info';
  if (!(logLevels as readonly string[]).includes(logLevel)) {
    throw new DriveError('invalidField', `log level ${JSON.stringify(logLevel)}; allowed: ${logLevels.join(', ')}`);
  }
  const tcp = address('tcp', options.tcp ?? `127.0.0.1:${DISCOVERY_PORT}`);
  if (tcp === undefined) throw new DriveError('invalidField', 'tcp off; allowed: HOST:PORT');
  const logger = createLogger({ level: logLevel as LogLevel, name: 'attndrive-discovery' });
  const onFatal = (error: unknown): void => {
    logger.error({ err: error }, 'broken invariant: the discovery service stops');
    process.exit(EXIT_SOFTWARE);
  };
  process.on('uncaughtException', onFatal);
  process.on('unhandledRejection', onFatal);
  const service = new DiscoveryService(
    { recordsPath: options.records, hostsPath: options.hosts, firmware: version().slice(0, 8) },
    { logger, onFatal },
  );
  const listener = await service.start(tcp);
  process.on('SIGHUP', () => service.reload());
  process.stdout.write(`attndrive discovery ready: ${listener}\n`);
  const signal = await stopSignal();
  logger.info({ signal }, 'stopping');
  await service.stop();
}
