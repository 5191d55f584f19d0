import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { systemClock } from './base/clock.ts';
import { createLogger, type LogLevel } from './base/logger.ts';
import { systemRandom } from './base/random.ts';
import { type DaemonOptions, resolveConfig } from './config.ts';
import { Drive } from './drive.ts';

/** Exit status after a broken invariant of ours: `EX_SOFTWARE`. The service manager may start it again. */
export const EXIT_SOFTWARE = 70;

/** Of the program. */
export const version = (): string => {
  const path = new URL('../../package.json', import.meta.url);
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version;
};

/**
 * Runs the drive in `folder` until SIGTERM or SIGINT, then shuts it down in order. One line on standard output says when
 * it is ready and where. DriveError if it can't start.
 */
export async function runDaemon(folder: string, options: DaemonOptions): Promise<void> {
  const config = resolveConfig(options, process.env, process.getuid?.() ?? 0);
  const logger = createLogger({ level: config.logLevel as LogLevel, name: 'attndrive' });
  const onFatal = (error: unknown): void => {
    logger.error({ err: error }, 'broken invariant: the drive stops; the next start recovers what is durable');
    process.exit(EXIT_SOFTWARE);
  };
  const modules = { clock: systemClock, random: systemRandom, logger, onFatal };
  const drive = new Drive({ folder: resolve(folder), config, version: version() }, modules);
  process.on('uncaughtException', onFatal);
  process.on('unhandledRejection', onFatal);
  await drive.start();
  const { serial, nvmeSocket, adminSocket, tcp, http } = drive.running();
  const places = [
    `unix:${nvmeSocket}`,
    tcp && `tcp:${tcp}`,
    `http+unix:${adminSocket}`,
    http && `${config.httpCertFile === undefined ? 'http' : 'https'}://${http}`,
  ];
  const { name, isa } = drive.room('kernels');
  process.stdout.write(
    `attndrive ready: serial ${serial}, kernels ${name} (${isa}), ${places.filter(Boolean).join(' ')}\n`,
  );
  process.on('SIGHUP', () => drive.reload());
  const signal = await stopSignal();
  logger.info({ signal }, 'stopping');
  // A second signal while it stops ends it at once, as a crash would.
  await drive.stop();
  logger.info({}, 'stopped');
}

export function stopSignal(): Promise<NodeJS.Signals> {
  return new Promise((done) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => done(signal));
  });
}
