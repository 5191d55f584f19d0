import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import { CACHE_BYTES_MIN } from './attention/page-cache.ts';
import { DriveError } from './base/errors.ts';
import { defaultGcOptions, gcBounds, type Placement, placements } from './ftl/gc-options.ts';
import { type VictimPolicyName, victimPolicyNames } from './ftl/victim-policy.ts';
import { verifyPolicies, type VerifyPolicy } from './ftl/verify-policy.ts';
import { type KernelName, kernelNames, type KernelPrecision, kernelPrecisions } from './kernels/contract.ts';

/** A TCP address to listen on. Port 0: any free port. */
export interface SocketAddress {
  readonly host: string;
  readonly port: number;
}

/** What may be given to a daemon; everything has a default. */
export interface DaemonOptions {
  /** NVMe/TCP; 'off': Unix socket only. Default 127.0.0.1:4420. */
  readonly tcp?: string | undefined;
  /** HTTP control plane and metrics; 'off': Unix socket only. Default 127.0.0.1:4480. */
  readonly http?: string | undefined;
  /** Names by which HTTP clients may call this machine, besides its addresses, localhost and the host of `http`. */
  readonly httpNames?: readonly string[] | undefined;
  /** File with the token that HTTP over TCP wants. Default: none; then it only shows the drive. */
  readonly httpTokenFile?: string | undefined;
  /** Whether metrics are shown without the token, too. */
  readonly httpOpenMetrics?: boolean | undefined;
  /** Files with a certificate chain and its private key, PEM: HTTP over TCP speaks TLS. Default: none. */
  readonly httpCertFile?: string | undefined;
  readonly httpKeyFile?: string | undefined;
  /** IP address that hosts are told to come to, where another machine stands between (NAT). Default: as they came. */
  readonly advertise?: string | undefined;
  /** Discovery services to register with, HOST:PORT. Default: none. */
  readonly discovery?: readonly string[] | undefined;
  /** File of the hosts that may connect, read again at SIGHUP. Default: none, every host may. */
  readonly hosts?: string | undefined;
  readonly kernels?: string | undefined;
  /** How far native kernels may be from float32 arithmetic: exact, close (default) or fast. */
  readonly kernelPrecision?: string | undefined;
  /** Compute workers; default: one per CPU. 0: everything on the event loop. */
  readonly workers?: number | undefined;
  /** Parent of this drive's runtime folder; should lie on tmpfs. Default as in `runtimeFolder`. */
  readonly runtimeFolder?: string | undefined;
  /** Group that may use the runtime folder (mode 0770 instead of 0700). */
  readonly group?: string | undefined;
  /** Tail buffers, transfer buffers and job lists, in bytes. Default 512 MiB; only touched pages take memory. */
  readonly bufferBytes?: number | undefined;
  /** How flash pages are read and written: mapped (default; by the system's page cache) or direct (past it). */
  readonly io?: string | undefined;
  /**
   * The drive's own cache of flash pages: with direct I/O, and for kernels that cannot map the media (WebAssembly,
   * reference). Default 256 MiB.
   */
  readonly cacheBytes?: number | undefined;
  /** Microseconds for which the event loop stays awake once a host was answered. Default 50; with one CPU 0: not at all. */
  readonly busyPollUs?: number | undefined;
  /** Longest time, in milliseconds, that completed but unflushed changes stay without a checkpoint. Default 1000. */
  readonly checkpointIntervalMs?: number | undefined;
  /** When flash pages are checked: first-use (default) or always. */
  readonly verify?: string | undefined;
  /** What is kept apart when it is written: lifetime (default), copies or plain. */
  readonly placement?: string | undefined;
  /** How garbage collection chooses what to empty: greedy (default), cost-benefit, d-choices or fifo. */
  readonly gcPolicy?: string | undefined;
  /** d-choices: superblocks drawn. Default 8. */
  readonly gcChoices?: number | undefined;
  /** fifo: superblocks looked at. Default 1. */
  readonly gcWindow?: number | undefined;
  /** Superblocks with room below which writes pay for garbage collection. Default 2. */
  readonly gcStart?: number | undefined;
  /** Superblocks with room up to which it goes on while no host writes. Default 4, or as many as `gcStart`. */
  readonly gcStop?: number | undefined;
  /** Device time: off (default), report, or enforce: completions leave when the device would have had them. */
  readonly timing?: string | undefined;
  /** File to record arrivals and device jobs in; a new one. */
  readonly record?: string | undefined;
  /** Time in which the scrub looks at every page in use once; 0: only on request. Default a week. */
  readonly scrubIntervalSeconds?: number | undefined;
  /** Whether faults may be injected by the control plane. Default false. */
  readonly allowFaults?: boolean | undefined;
  readonly logLevel?: string | undefined;
}

/** Checked, complete, frozen. */
export interface DaemonConfig {
  readonly tcp: SocketAddress | undefined;
  readonly http: SocketAddress | undefined;
  readonly httpNames: readonly string[];
  readonly httpTokenFile: string | undefined;
  readonly httpOpenMetrics: boolean;
  readonly httpCertFile: string | undefined;
  readonly httpKeyFile: string | undefined;
  readonly advertise: string | undefined;
  readonly discovery: readonly SocketAddress[];
  readonly hosts: string | undefined;
  readonly kernels: KernelName | 'auto';
  readonly kernelPrecision: KernelPrecision;
  readonly workers: number;
  readonly runtimeFolder: string;
  readonly group: string | undefined;
  readonly bufferBytes: number;
  readonly io: CellsIoName;
  readonly cacheBytes: number;
  readonly busyPollUs: number;
  readonly checkpointIntervalMs: number;
  readonly verify: VerifyPolicy;
  readonly placement: Placement;
  readonly gcPolicy: VictimPolicyName;
  readonly gcChoices: number;
  readonly gcWindow: number;
  readonly gcStart: number;
  readonly gcStop: number;
  readonly timing: TimingMode;
  readonly record: string | undefined;
  readonly scrubIntervalSeconds: number;
  readonly allowFaults: boolean;
  readonly logLevel: string;
}

const MIB = 2 ** 20;
export const cellsIoNames = ['mapped', 'direct'] as const;
export type CellsIoName = (typeof cellsIoNames)[number];
const DIRECT_CACHE_BYTES_MAX = 2 ** 40;
export const timingModes = ['off', 'report', 'enforce'] as const;
export type TimingMode = (typeof timingModes)[number];
const WEEK_SECONDS = 7 * 86_400;
const YEAR_SECONDS = 366 * 86_400;
export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;

/** Checks every option; the first wrong one is an invalidField error that names it, its value and what is allowed. */
export function resolveConfig(options: DaemonOptions, environment: NodeJS.ProcessEnv, userId: number): DaemonConfig {
  const kernels = options.kernels ?? environment['ATTNDRIVE_KERNELS'] ?? 'auto';
  const allowedKernels: readonly string[] = ['auto', ...kernelNames];
  if (!allowedKernels.includes(kernels)) refuse('kernels', kernels, allowedKernels.join(', '));
  const kernelPrecision = options.kernelPrecision ?? 'close';
  if (!(kernelPrecisions as readonly string[]).includes(kernelPrecision)) {
    refuse('kernel precision', kernelPrecision, kernelPrecisions.join(', '));
  }
  const logLevel = options.logLevel ?? 'info';
  if (!(logLevels as readonly string[]).includes(logLevel)) refuse('log level', logLevel, logLevels.join(', '));
  const verify = options.verify ?? 'first-use';
  if (!(verifyPolicies as readonly string[]).includes(verify)) refuse('verify', verify, verifyPolicies.join(', '));
  return Object.freeze({
    tcp: address('tcp', options.tcp ?? '127.0.0.1:4420'),
    ...httpConfig(options),
    advertise: ipAddress('advertised address', options.advertise),
    discovery: discoveryServices(options),
    hosts: options.hosts,
    kernels: kernels as KernelName | 'auto',
    kernelPrecision: kernelPrecision as KernelPrecision,
    workers: within('workers', options.workers ?? availableParallelism(), 0, 256),
    runtimeFolder: options.runtimeFolder ?? defaultRuntimeFolder(environment, userId),
    group: options.group,
    bufferBytes: within('buffer size', options.bufferBytes ?? 512 * MIB, 16 * MIB, 3072 * MIB),
    ...cacheConfig(options, kernels),
    busyPollUs: within('busy poll (us)', options.busyPollUs ?? (availableParallelism() > 1 ? 50 : 0), 0, 10_000),
    checkpointIntervalMs: within('checkpoint interval (ms)', options.checkpointIntervalMs ?? 1000, 10, 3_600_000),
    verify: verify as VerifyPolicy,
    ...garbageCollection(options),
    ...deviceTime(options),
    scrubIntervalSeconds: within('scrub interval (s)', options.scrubIntervalSeconds ?? WEEK_SECONDS, 0, YEAR_SECONDS),
    allowFaults: options.allowFaults ?? false,
    logLevel,
  });
}

/** Direct I/O is into memory of the native addon, and whoever walks pages never waits for the disk. */
function cacheConfig(options: DaemonOptions, kernels: string): Pick<DaemonConfig, 'io' | 'cacheBytes'> {
  const { io = 'mapped', cacheBytes = 256 * MIB, workers } = options;
  if (!(cellsIoNames as readonly string[]).includes(io)) refuse('I/O', io, cellsIoNames.join(', '));
  if (io === 'mapped') return { io, cacheBytes: within('cache size', cacheBytes, MIB, 3072 * MIB) };
  if (kernels !== 'auto' && kernels !== 'native') refuse('kernels', kernels, 'auto or native, with direct I/O');
  if (workers === 0) refuse('workers', workers, 'at least 1, with direct I/O');
  const size = within('cache size', cacheBytes, CACHE_BYTES_MIN, DIRECT_CACHE_BYTES_MAX);
  return { io: io as CellsIoName, cacheBytes: size };
}

function deviceTime({ timing = 'off', record }: DaemonOptions): Pick<DaemonConfig, 'timing' | 'record'> {
  if (!(timingModes as readonly string[]).includes(timing)) refuse('timing', timing, timingModes.join(', '));
  if (record !== undefined && timing === 'off') refuse('record', record, 'with timing report or enforce only, not off');
  return { timing: timing as TimingMode, record };
}

type HttpConfig = Pick<
  DaemonConfig,
  'http' | 'httpNames' | 'httpTokenFile' | 'httpOpenMetrics' | 'httpCertFile' | 'httpKeyFile'
>;

function httpConfig(options: DaemonOptions): HttpConfig {
  const { httpNames = [], httpTokenFile, httpOpenMetrics = false, httpCertFile, httpKeyFile } = options;
  const http = address('http', options.http ?? '127.0.0.1:4480');
  for (const name of httpNames) if (!/^[A-Za-z0-9.-]+$/.test(name)) refuse('HTTP name', name, 'the name of a machine');
  if ((httpCertFile === undefined) !== (httpKeyFile === undefined)) {
    refuse('certificate and key', [httpCertFile, httpKeyFile].join(''), 'both or none');
  }
  const given = httpTokenFile ?? httpCertFile;
  if (http === undefined && given !== undefined) refuse('token or certificate', given, 'none, with http off');
  if (httpOpenMetrics && httpTokenFile === undefined)
    refuse('open metrics', true, 'with a token file: they are open without');
  return { http, httpNames, httpTokenFile, httpOpenMetrics, httpCertFile, httpKeyFile };
}

type GcConfig = Pick<DaemonConfig, 'placement' | 'gcPolicy' | 'gcChoices' | 'gcWindow' | 'gcStart' | 'gcStop'>;

function garbageCollection(options: DaemonOptions): GcConfig {
  const { policy, choiceCount, windowSuperblocks, startSuperblocks, stopSuperblocks } = defaultGcOptions;
  const gcPolicy = options.gcPolicy ?? policy;
  const names: readonly string[] = victimPolicyNames;
  if (!names.includes(gcPolicy)) refuse('garbage collection policy', gcPolicy, names.join(', '));
  const { gcChoices = choiceCount, gcWindow = windowSuperblocks } = options;
  if (options.gcChoices !== undefined && gcPolicy !== 'd-choices') {
    refuse('garbage collection choices', gcChoices, `with policy d-choices only, not ${gcPolicy}`);
  }
  if (options.gcWindow !== undefined && gcPolicy !== 'fifo') {
    refuse('garbage collection window', gcWindow, `with policy fifo only, not ${gcPolicy}`);
  }
  const placement = options.placement ?? defaultGcOptions.placement;
  if (!(placements as readonly string[]).includes(placement)) refuse('placement', placement, placements.join(', '));
  const { choicesMax, windowMax, superblocksMax } = gcBounds;
  const gcStart = within('garbage collection start', options.gcStart ?? startSuperblocks, 1, superblocksMax);
  const stop = options.gcStop ?? Math.max(gcStart, stopSuperblocks);
  return {
    placement: placement as Placement,
    gcPolicy: gcPolicy as VictimPolicyName,
    gcChoices: within('garbage collection choices', gcChoices, 1, choicesMax),
    gcWindow: within('garbage collection window', gcWindow, 1, windowMax),
    gcStart,
    gcStop: within('garbage collection stop', stop, gcStart, superblocksMax),
  };
}

/** Where running drives of this user are found: systemd's runtime directory, the session's, or shared memory. */
export function defaultRuntimeFolder(environment: NodeJS.ProcessEnv, userId: number): string {
  if (environment['RUNTIME_DIRECTORY']) return environment['RUNTIME_DIRECTORY'];
  if (environment['XDG_RUNTIME_DIR']) return `${environment['XDG_RUNTIME_DIR']}/attndrive`;
  return `/dev/shm/attndrive-${userId}`;
}

function refuse(what: string, value: unknown, allowed: string): never {
  throw new DriveError('invalidField', `${what} ${JSON.stringify(value)}; allowed: ${allowed}`);
}

function within(what: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) refuse(what, value, `an integer from ${min} to ${max}`);
  return value;
}

function ipAddress(what: string, value: string | undefined): string | undefined {
  if (value !== undefined && isIP(value) === 0) refuse(what, value, 'an IPv4 or IPv6 address');
  return value;
}

/** A drive that no network reaches has nothing to register. */
function discoveryServices({ discovery = [], tcp }: DaemonOptions): SocketAddress[] {
  if (discovery.length > 0 && tcp === 'off') refuse('discovery', discovery.join(', '), 'none, with tcp off');
  return discovery.map((text) => {
    const service = address('discovery', text);
    if (service === undefined || service.port === 0) refuse('discovery', text, 'HOST:PORT with port 1 to 65535');
    return service;
  });
}

/** `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (loopback) or `off`. */
export function address(what: string, value: string): SocketAddress | undefined {
  if (value === 'off') return undefined;
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (!match || port > 65_535) refuse(what, value, 'HOST:PORT, :PORT with port 0 to 65535, or off');
  return { host: match[1] ?? (match[2] || '127.0.0.1'), port };
}
