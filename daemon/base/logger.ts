import { pino } from 'pino';

/**
 * Where a room writes what people should know. Injected; each room gets a child with its name. `fields` are names and
 * values, never a sentence built from them; `err` is an error.
 *
 * `error`: somebody must act. `warn`: somebody should look when there is time. `info`: life of the drive (started,
 * stopped, checkpoint after a crash). `debug`: life of connections and sequences. `trace`: single commands.
 */
export interface Logger {
  trace(fields: object, message: string): void;
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
  child(fields: object): Logger;
}

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent';

/** Takes whole lines of JSON. */
export interface LogSink {
  write(line: string): void;
}

/** One JSON object a line; `time` is an ISO 8601 text. Without a sink it goes to standard error. */
export function createLogger(options: { level: LogLevel; name?: string }, sink?: LogSink): Logger {
  return pino(
    {
      level: options.level,
      base: options.name === undefined ? null : { name: options.name },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    sink ?? pino.destination({ dest: 2, sync: true }),
  );
}

/** For tests and tools that want no log. */
export const silentLogger: Logger = {
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLogger,
};
