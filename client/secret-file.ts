import { closeSync, constants, fstatSync, openSync, readFileSync, type Stats } from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { createSecretKey, type KeyObject } from 'node:crypto';
import { type ChapSecret, parseChapSecret } from '../spec/index.ts';

/** A secret kept as a KeyObject, which shows its bytes neither to a log nor to an inspector. */
export type DhChapSecret = ChapSecret<KeyObject>;

/** How a host proves itself, and the drive to it. */
export interface DhChapSecrets {
  readonly secret: DhChapSecret;
  /** With it the drive has to prove itself, too. */
  readonly controllerSecret: DhChapSecret | undefined;
}

export interface SecretFileOptions {
  /** What a relative path begins at; default: the working directory. */
  readonly folder?: string | undefined;
  /** Default: of this process. */
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
}

const CREDENTIAL = 'credential:';
const FILE_BYTES_MAX = 65_536;
const OTHERS = 0o007;
const GROUP_AND_OTHERS = 0o077;

/**
 * Reads a file that nobody else may read: a path, or `credential:NAME` for a file in `$CREDENTIALS_DIRECTORY`, where
 * systemd puts a service's. It has to belong to this user or root, and its mode must not let others in (credentials may be
 * readable by a group: systemd shows an access list so). Error says what is wrong with the file, and never what is in it.
 */
export function readSecretFile(reference: string, what: string, options: SecretFileOptions = {}): string {
  const isCredential = reference.startsWith(CREDENTIAL);
  const path = isCredential ? credentialPath(reference, what, options) : resolve(options.folder ?? '.', reference);
  return readChecked(path, what, (stat) => secretProblem(stat, isCredential ? OTHERS : GROUP_AND_OTHERS));
}

/** Reads a file that others may read and nobody else may write: what it says decides who may do what. */
export function readTrustedFile(path: string, what: string): string {
  return readChecked(path, what, (stat) => {
    if ((stat.mode & 0o022) !== 0) return `mode ${modeText(stat)} lets others write it; allowed: 0644 or less`;
    return ownerProblem(stat);
  });
}

/** Files with secrets, as `readSecretFile` takes them. Named as nvme-cli names the secrets. */
export interface SecretFiles {
  /** Secret of this host. */
  readonly dhChapSecretFile?: string | undefined;
  /** Secret of the drive, which has to prove that it knows it. */
  readonly dhChapControllerSecretFile?: string | undefined;
}

/** The secrets that files hold; undefined: none is named. Error. */
export function readDhChapSecrets(files: SecretFiles): DhChapSecrets | undefined {
  const { dhChapSecretFile, dhChapControllerSecretFile } = files;
  if (dhChapSecretFile === undefined) {
    if (dhChapControllerSecretFile === undefined) return undefined;
    throw new Error('a controller secret without a secret of the host: the drive proves itself to hosts that have one');
  }
  const controllerSecret =
    dhChapControllerSecretFile === undefined
      ? undefined
      : readDhChapSecret(dhChapControllerSecretFile, 'controller secret');
  return { secret: readDhChapSecret(dhChapSecretFile, 'host secret'), controllerSecret };
}

/** A DH-HMAC-CHAP secret, `DHHC-1:HH:BASE64:`, from a file as readSecretFile takes it. Error. */
export function readDhChapSecret(reference: string, what: string, options: SecretFileOptions = {}): DhChapSecret {
  const text = readSecretFile(reference, what, options);
  try {
    const { transform, key } = parseChapSecret(text);
    const secret = { transform, key: createSecretKey(key) };
    key.fill(0);
    return secret;
  } catch (error) {
    throw new Error(`${what} in ${reference}: ${(error as Error).message}`);
  }
}

function credentialPath(reference: string, what: string, { environment = process.env }: SecretFileOptions): string {
  const name = reference.slice(CREDENTIAL.length);
  const folder = environment['CREDENTIALS_DIRECTORY'];
  if (!/^[A-Za-z0-9._-]+$/.test(name) || name.startsWith('.')) throw new Error(`${what}: credential name "${name}"`);
  if (folder === undefined || !isAbsolute(folder)) {
    throw new Error(
      `${what}: ${reference}, but $CREDENTIALS_DIRECTORY is not set (systemd: LoadCredential=${name}:PATH)`,
    );
  }
  return join(folder, name);
}

/** Looks at the open file, so that nobody can put another in its place in between. */
function readChecked(path: string, what: string, problemOf: (stat: Stats) => string | undefined): string {
  let fileDescriptor: number;
  try {
    // A pipe in its place must not make us wait.
    fileDescriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new Error(`${what}: cannot open ${path}: ${(error as NodeJS.ErrnoException).code}`, { cause: error });
  }
  try {
    const stat = fstatSync(fileDescriptor);
    const problem = stat.isFile() ? problemOf(stat) : 'is no file';
    if (problem !== undefined) throw new Error(`${what}: ${path}: ${problem}`);
    if (stat.size > FILE_BYTES_MAX) throw new Error(`${what}: ${path}: ${stat.size} bytes, at most ${FILE_BYTES_MAX}`);
    return readFileSync(fileDescriptor, 'utf8');
  } finally {
    closeSync(fileDescriptor);
  }
}

function secretProblem(stat: Stats, forbidden: number): string | undefined {
  if ((stat.mode & forbidden) !== 0) return `mode ${modeText(stat)} lets others in; allowed: 0600, 0400`;
  return ownerProblem(stat);
}

function ownerProblem({ uid }: Stats): string | undefined {
  const own = process.geteuid?.() ?? uid;
  return uid === own || uid === 0 ? undefined : `belongs to user ${uid}; allowed: this user (${own}) or root`;
}

const modeText = ({ mode }: Stats): string => (mode & 0o7777).toString(8).padStart(4, '0');
