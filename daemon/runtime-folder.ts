import { chmodSync, chownSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DriveError } from './base/errors.ts';
import { fileError, fileErrorReason } from './base/file-errors.ts';
import { FolderLock } from './ftl/folder-lock.ts';

/** What a running drive says of itself, for clients on this machine. */
export interface RunningFile {
  readonly pid: number;
  readonly folder: string;
  readonly serial: string;
  readonly nvmeSocket: string;
  readonly adminSocket: string;
  /** `HOST:PORT`; empty: not there. */
  readonly tcp: string;
  readonly http: string;
}

export interface RuntimeFolderOptions {
  readonly parent: string;
  readonly serial: string;
  /** The drive's folder, where `running.json` goes. */
  readonly folder: string;
  readonly group: string | undefined;
}

/** Longest path of a Unix socket on Linux, its final zero left out. */
const SOCKET_PATH_BYTES_MAX = 107;

/** The drive's folder on tmpfs: sockets, memory regions, and a file that says where everything is. */
export class RuntimeFolder {
  readonly path: string;
  readonly nvmeSocket: string;
  readonly adminSocket: string;
  readonly regions: string;
  /** Modes of sockets and of region files. */
  readonly socketMode: number;
  readonly regionMode: number;
  readonly #announcements: readonly string[];

  private constructor(path: string, folder: string, isShared: boolean) {
    this.path = path;
    this.nvmeSocket = join(path, 'nvme.sock');
    this.adminSocket = join(path, 'admin.sock');
    this.regions = join(path, 'regions');
    this.socketMode = isShared ? 0o660 : 0o600;
    this.regionMode = isShared ? 0o660 : 0o600;
    this.#announcements = [join(path, 'drive.json'), join(folder, 'running.json')];
  }

  /**
   * DriveError invalidField if the folder can't be made, its paths are too long for sockets, or the group is unknown;
   * folderInUse if another daemon has it: a copy of a drive has the same serial number.
   */
  static create({ parent, serial, folder, group }: RuntimeFolderOptions): RuntimeFolder {
    const path = join(parent, serial);
    const created = new RuntimeFolder(path, folder, group !== undefined);
    const tooLong = [created.nvmeSocket, created.adminSocket].find(
      (socket) => Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX,
    );
    if (tooLong !== undefined) {
      throw new DriveError('invalidField', `runtime folder: ${tooLong} is longer than ${SOCKET_PATH_BYTES_MAX} bytes`);
    }
    const mode = group === undefined ? 0o700 : 0o770;
    try {
      mkdirSync(parent, { recursive: true, mode: group === undefined ? 0o700 : 0o755 });
      mkdirSync(path, { recursive: true, mode });
      chmodSync(path, mode);
      if (group !== undefined) chownSync(path, process.getuid?.() ?? 0, groupId(group));
      // Removed with the folder.
      FolderLock.take(path);
    } catch (error) {
      if (error instanceof DriveError) throw error;
      throw new DriveError('invalidField', `runtime folder ${path}: ${fileErrorReason(error, path)}`, { cause: error });
    }
    return created;
  }

  announce(running: RunningFile): void {
    for (const path of this.#announcements) {
      try {
        writeFileSync(`${path}.new`, `${JSON.stringify(running, undefined, 2)}\n`, { mode: 0o600 });
        renameSync(`${path}.new`, path);
      } catch (error) {
        throw fileError('writeFault', error, path);
      }
    }
  }

  remove(): void {
    for (const path of this.#announcements) rmSync(path, { force: true });
    rmSync(this.path, { recursive: true, force: true });
  }
}

function groupId(name: string): number {
  const line = readFileSync('/etc/group', 'utf8')
    .split('\n')
    .find((row) => row.startsWith(`${name}:`));
  const id = Number(line?.split(':')[2]);
  if (line === undefined || !Number.isInteger(id))
    throw new DriveError('invalidField', `group ${name} is not known here`);
  return id;
}
