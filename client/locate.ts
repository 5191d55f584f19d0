import { readdirSync, readFileSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { userInfo } from 'node:os';
import { formatAddress, parseAddress } from './address.ts';
import { DriveUnreachableError } from './errors.ts';

/** A running drive, as its daemon says in `running.json` of its folder and `drive.json` of its runtime folder. */
export interface RunningDrive {
  readonly processId: number;
  /** The drive's folder. */
  readonly folder: string;
  readonly serial: string;
  /** Unix sockets. */
  readonly nvmeSocket: string;
  readonly adminSocket: string;
  /** `HOST:PORT` of NVMe/TCP and HTTP; empty if the daemon doesn't listen there. */
  readonly tcp: string;
  readonly http: string;
}

/** Where to connect: an address for `DriveClient.connect`, and one for `AdminClient` if it is known. */
export interface DriveLocation {
  readonly address: string;
  readonly adminAddress: string | undefined;
  /** What the daemon says of itself; undefined for an address that was given. */
  readonly drive: RunningDrive | undefined;
}

export interface LocateOptions {
  /** Default: of this process. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
}

/** Name of the file in a drive's folder while a daemon serves it. */
export const RUNNING_FILE = 'running.json';
/** Name of the file in a drive's runtime folder. */
export const DRIVE_FILE = 'drive.json';
const FILE_BYTES_MAX = 65_536;

/**
 * Finds a drive by what a person gives as `--drive`: a drive's folder, `unix:PATH`, `tcp:HOST:PORT`, or nothing: the
 * one running drive of this user. DriveUnreachableError says what to start, or which drives there are to choose from;
 * RangeError for an address that is none.
 */
export function locateDrive(target: string | undefined, options: LocateOptions = {}): DriveLocation {
  if (target === undefined || target === '') return locationOf(theOneRunning(options));
  if (/^(unix|tcp):/.test(target)) {
    return { address: formatAddress(parseAddress(target)), adminAddress: undefined, drive: undefined };
  }
  return locationOf(runningIn(target));
}

/** Running drives of this user, by serial number. */
export const runningDrives = (options: LocateOptions = {}): RunningDrive[] => announcedDrives(options).running;

/** Drives that a daemon of this user announced, by serial number: those that run, and those whose daemon died. */
export function announcedDrives(options: LocateOptions = {}): { running: RunningDrive[]; gone: RunningDrive[] } {
  const drives = runtimeFolders(options.environment ?? process.env).flatMap((folder) =>
    entriesOf(folder).flatMap((name) => readRunning(`${folder}/${name}/${DRIVE_FILE}`) ?? []),
  );
  const bySerial = (wanted: readonly RunningDrive[]): RunningDrive[] =>
    [...new Map(wanted.map((drive) => [drive.serial, drive])).values()].sort((a, b) => (a.serial < b.serial ? -1 : 1));
  const running = bySerial(drives.filter(({ processId }) => isAlive(processId)));
  const serials = new Set(running.map(({ serial }) => serial));
  return { running, gone: bySerial(drives.filter(({ serial }) => !serials.has(serial))) };
}

/**
 * Where daemons announce themselves: what RUNTIME_DIRECTORY says and nothing else; without it the session's folder,
 * the user's in shared memory, and that of a system service.
 */
export function runtimeFolders(environment: Readonly<Record<string, string | undefined>>): string[] {
  const { RUNTIME_DIRECTORY, XDG_RUNTIME_DIR } = environment;
  if (RUNTIME_DIRECTORY) return [RUNTIME_DIRECTORY];
  const session = XDG_RUNTIME_DIR ? [`${XDG_RUNTIME_DIR}/attndrive`] : [];
  return [...session, `/dev/shm/attndrive-${userInfo().uid}`, '/run/attndrive'];
}

function theOneRunning(options: LocateOptions): RunningDrive {
  const drives = runningDrives(options);
  const [first, second] = drives;
  if (first === undefined) {
    throw new DriveUnreachableError('no drive of this user is running; start one with "attndrive start DIR"');
  }
  if (second === undefined) return first;
  const list = drives.map(({ serial, folder }) => `${folder} (${serial})`).join(', ');
  throw new DriveUnreachableError(`${drives.length} drives are running; choose one with --drive: ${list}`);
}

function runningIn(target: string): RunningDrive {
  const folder = resolve(target);
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new DriveUnreachableError(`${target} is no folder; allowed: a drive's folder, unix:PATH, tcp:HOST:PORT`);
  }
  const drive = readRunning(`${folder}/${RUNNING_FILE}`);
  if (drive === undefined) {
    throw new DriveUnreachableError(`no daemon serves ${target}; start it with "attndrive start ${target}"`);
  }
  if (!isAlive(drive.processId)) {
    const hint = `start it again with "attndrive start ${target}"`;
    throw new DriveUnreachableError(`the daemon of ${target} (process ${drive.processId}) is gone; ${hint}`);
  }
  return drive;
}

const locationOf = (drive: RunningDrive): DriveLocation => ({
  address: `unix:${drive.nvmeSocket}`,
  adminAddress: `unix:${drive.adminSocket}`,
  drive,
});

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

/** The file's content, or undefined if it isn't there or isn't ours: files of daemons that died may be half written. */
function readRunning(path: string): RunningDrive | undefined {
  try {
    if (statSync(path).size > FILE_BYTES_MAX) return undefined;
    const value = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
    const { pid, folder, serial, nvmeSocket, adminSocket, tcp, http } = value;
    const texts = [folder, serial, nvmeSocket, adminSocket];
    if (!Number.isInteger(pid) || !texts.every((text) => typeof text === 'string' && text !== '')) return undefined;
    return {
      processId: pid as number,
      folder: folder as string,
      serial: serial as string,
      nvmeSocket: nvmeSocket as string,
      adminSocket: adminSocket as string,
      tcp: typeof tcp === 'string' ? tcp : '',
      http: typeof http === 'string' ? http : '',
    };
  } catch {
    return undefined;
  }
}

function isAlive(processId: number): boolean {
  try {
    process.kill(processId, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false;
  }
  return !isZombie(processId);
}

/** A process that has ended and that its parent has not asked about yet: it can still be signalled, and does nothing. */
function isZombie(processId: number): boolean {
  try {
    // "PID (NAME) STATE ...": the name may hold anything, parentheses too.
    const stat = readFileSync(`/proc/${processId}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) === 'Z';
  } catch {
    return false;
  }
}
