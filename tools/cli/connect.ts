/** Finding and connecting to the drive that a command is about. */
import type { Command } from 'commander';
import { CliError } from './cli-error.ts';
import type { AdminClient, ConnectOptions, DriveClient } from '../../client/index.ts';

export interface DriveOption {
  readonly drive?: string;
  readonly hostnqn?: string;
  readonly dhchapSecretFile?: string;
  readonly dhchapCtrlSecretFile?: string;
}

/** Adds --drive to a command that talks to a running drive. */
export function withDriveOption(command: Command): Command {
  return command
    .option('--drive <ADDRESS>', 'drive folder, unix:PATH or tcp:HOST:PORT (default: the one that runs)')
    .option('--hostnqn <NQN>', 'NQN of this host (default: one made of its name and the user)')
    .option('--dhchap-secret-file <FILE>', 'secret of this host: a file of mode 0600, or credential:NAME')
    .option('--dhchap-ctrl-secret-file <FILE>', 'secret that the drive has to prove to know');
}

const connectOptions = (options: DriveOption): ConnectOptions => ({
  hostNqn: options.hostnqn,
  dhChapSecretFile: options.dhchapSecretFile,
  dhChapControllerSecretFile: options.dhchapCtrlSecretFile,
});

/** Connects, runs `work`, disconnects. Errors of the SDK are for people; what the drive refused is explained. */
export async function withDrive<T>(options: DriveOption, work: (client: DriveClient) => Promise<T>): Promise<T> {
  const { DriveClient, DriveCommandError, locateDrive } = await import('../../client/index.ts');
  const client = await DriveClient.connect(locateDrive(options.drive).address, connectOptions(options));
  try {
    return await work(client);
  } catch (error) {
    if (!(error instanceof DriveCommandError)) throw error;
    const { explainFailure } = await import('./explain.ts');
    throw new CliError(await explainFailure(error, client, options));
  } finally {
    await client.close();
  }
}

const NVME_SOCKET = /nvme\.sock$/;

/**
 * As withDrive, for the control plane; undefined where it is not known where that listens (a drive on another machine,
 * named by its NVMe address).
 */
export async function withAdmin<T>(
  options: DriveOption,
  work: (admin: AdminClient) => Promise<T>,
): Promise<T | undefined> {
  const { AdminClient, locateDrive } = await import('../../client/index.ts');
  const { address, adminAddress } = locateDrive(options.drive);
  const beside = NVME_SOCKET.test(address) ? address.replace(NVME_SOCKET, 'admin.sock') : undefined;
  const known = adminAddress ?? beside;
  if (known === undefined) return undefined;
  const admin = new AdminClient(known);
  try {
    return await work(admin);
  } finally {
    await admin.close();
  }
}

/** As withAdmin; CliError where it is not known where the control plane listens. */
export async function withControlPlane<T>(options: DriveOption, work: (admin: AdminClient) => Promise<T>): Promise<T> {
  const answer = await withAdmin(options, async (admin) => ({ value: await work(admin) }));
  if (answer === undefined) throw new CliError('the control plane of a drive on another machine is not known');
  return answer.value;
}
