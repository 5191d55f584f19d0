import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import { LimitedLog } from '../base/limited-log.ts';
import type { Logger } from '../base/logger.ts';
import type { Limits, NetworkAddress } from '../commands/contract.ts';
import type { ConnectionSnapshot } from '../controller/contract.ts';
import type { Subsystem } from '../controller/subsystem.ts';
import { BusyPoll } from './busy-poll.ts';
import { Connection, type RefusalReason } from './connection.ts';
import type { Checksum } from './pdu-reader.ts';

/** Where hosts connect: a TCP address (port 0: any free one), or the path of a Unix socket and its file mode. */
export type ListenAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number };

export interface TransportOptions {
  readonly limits: Limits;
  /** How long the event loop stays awake once a host was answered; 0 (default): it does not. */
  readonly busyPollNs?: number;
}

export interface TransportModules {
  readonly subsystem: Subsystem;
  readonly clock: Clock;
  readonly logger: Logger;
  /** CRC32C of bytes anywhere, for hosts that want digests. */
  readonly checksum: Checksum;
}

export interface TransportSnapshot {
  readonly connections: readonly ConnectionSnapshot[];
  readonly acceptedConnectionCount: number;
  /** Connections that were never part of an association, by reason. */
  readonly refusedCounts: Readonly<Record<RefusalReason, number>>;
}

/** All sockets that speak NVMe/TCP, on any number of addresses. */
export class Transport {
  readonly #limits: Limits;
  readonly #modules: TransportModules;
  readonly #warnings: LimitedLog;
  readonly #servers: Server[] = [];
  readonly #networkAddresses: NetworkAddress[] = [];
  readonly #connections = new Set<Connection>();
  readonly #busyPoll: BusyPoll;
  readonly #refusedCounts: Record<RefusalReason, number> = { limit: 0, timeout: 0, protocol: 0 };
  #acceptedConnectionCount = 0;
  #closedBytes = { received: 0, sent: 0 };

  constructor({ limits, busyPollNs = 0 }: TransportOptions, modules: TransportModules) {
    this.#limits = limits;
    this.#modules = modules;
    const { subsystem, clock } = modules;
    this.#busyPoll = new BusyPoll({ windowNs: busyPollNs }, { clock, isIdle: () => subsystem.ioInFlightCount === 0 });
    this.#warnings = new LimitedLog(modules);
    modules.subsystem.setLinkBytesSource(() => this.#linkBytes());
  }

  /**
   * Starts to listen; returns the address in the form that `--drive` takes. DriveError addressInUse, or invalidField
   * for an address that this machine doesn't have, may not use, or a path that is too long.
   */
  async listen(address: ListenAddress): Promise<string> {
    if (address.kind === 'unix') await removeStaleSocket(address.path);
    const server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket, address.kind));
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(address, error)));
      const options =
        address.kind === 'unix' ? { path: address.path } : { host: address.host, port: address.port, backlog: 128 };
      server.listen(options, resolve);
    });
    server.removeAllListeners('error');
    server.on('error', (error) => this.#modules.logger.error({ error: error.message }, 'listening socket failed'));
    if (address.kind === 'unix') chmodSync(address.path, address.mode);
    this.#servers.push(server);
    const bound = server.address();
    if (address.kind === 'unix' || bound === null || typeof bound === 'string') return `unix:${addressText(address)}`;
    this.#networkAddresses.push({ host: bound.address, port: bound.port });
    return `tcp:${bound.address.includes(':') ? `[${bound.address}]` : bound.address}:${bound.port}`;
  }

  /** Where hosts on a network connect. */
  get networkAddresses(): readonly NetworkAddress[] {
    return this.#networkAddresses;
  }

  /** Stops listening, ends every connection, and resolves when the sockets are gone. */
  async close(): Promise<void> {
    const stopped = this.#servers
      .splice(0)
      .map((server) => new Promise<void>((resolve) => server.close(() => resolve())));
    for (const connection of this.#connections) connection.destroy('the drive stops');
    await Promise.all(stopped);
  }

  snapshot(): TransportSnapshot {
    return {
      connections: [...this.#connections].map((connection) => connection.snapshot()),
      acceptedConnectionCount: this.#acceptedConnectionCount,
      refusedCounts: { ...this.#refusedCounts },
    };
  }

  #accept(socket: Socket, transport: 'unix' | 'tcp'): void {
    const peer = transport === 'unix' ? 'unix' : `${socket.remoteAddress}:${socket.remotePort}`;
    if (this.#connections.size >= this.#limits.connectionCountMax && !this.#makeRoom()) {
      this.#refusedCounts.limit++;
      this.#warnings.warn({ peer, connectionCount: this.#connections.size }, 'connection refused: limit reached');
      socket.destroy();
      return;
    }
    this.#acceptedConnectionCount++;
    const { subsystem, clock, logger, checksum } = this.#modules;
    const onClosed = (connection: Connection): void => {
      const { receivedBytes, sentBytes } = connection.snapshot();
      this.#closedBytes.received += receivedBytes;
      this.#closedBytes.sent += sentBytes;
      if (connection.refusal !== undefined) this.#refusedCounts[connection.refusal]++;
      this.#connections.delete(connection);
    };
    const local =
      transport === 'unix' ? undefined : { host: plainAddress(socket.localAddress ?? ''), port: socket.localPort ?? 0 };
    const options = { transport, peer, local, limits: this.#limits };
    const parts = { warnings: this.#warnings, busyPoll: this.#busyPoll };
    const modules = { socket, subsystem, clock, logger, checksum, ...parts, onClosed };
    this.#connections.add(new Connection(options, modules));
  }

  /**
   * Drops the connection that has waited longest to get in, so that a flood of those that never will pushes out itself. Not
   * one that is used.
   */
  #makeRoom(): boolean {
    for (const connection of this.#connections) {
      if (!connection.isUsed) {
        connection.giveWay();
        this.#connections.delete(connection);
        return true;
      }
    }
    return false;
  }

  #linkBytes(): { receivedBytes: number; sentBytes: number } {
    let receivedBytes = this.#closedBytes.received;
    let sentBytes = this.#closedBytes.sent;
    for (const connection of this.#connections) {
      const snapshot = connection.snapshot();
      receivedBytes += snapshot.receivedBytes;
      sentBytes += snapshot.sentBytes;
    }
    return { receivedBytes, sentBytes };
  }
}

/** An IPv4 address that a socket for both families shows as IPv6 (::ffff:192.0.2.1). */
const plainAddress = (host: string): string => host.replace(/^::ffff:(?=\d+\.)/, '');

const addressText = (address: ListenAddress): string =>
  address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;

function listenError(address: ListenAddress, error: NodeJS.ErrnoException): DriveError {
  const where = addressText(address);
  if (error.code === 'EADDRINUSE') {
    return new DriveError('addressInUse', `${where}: give another address, or stop what listens there`, {
      cause: error,
    });
  }
  return new DriveError('invalidField', `listen address ${where}: ${error.code ?? error.message}`, { cause: error });
}

/** A socket file that nobody listens on is left over from a daemon that was killed. */
async function removeStaleSocket(path: string): Promise<void> {
  const code = await new Promise<string>((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve('EADDRINUSE');
    });
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? ''));
  });
  if (code === 'ECONNREFUSED' && lstatSync(path).isSocket()) unlinkSync(path);
}
