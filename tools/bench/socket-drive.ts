/** A drive for the benchmarks of its sockets, and a place for a queue that the SDK does not use. */
import { connectOptions, parseAddress } from '../../client/address.ts';
import { DriveClient, locateDrive } from '../../client/index.ts';
import { ANY_SUBSYSTEM_NQN } from '../../spec/index.ts';
import { startTemporaryDrive, type TemporaryDrive } from '../cli/temporary-drive.ts';
import type { SocketKind } from './bare-peer.ts';
import type { BenchOptions } from './bench.ts';
import { LoopWatch } from './loop-health.ts';
import type { QueuePlace } from './pdu-load.ts';

const HOST_NQN = 'nqn.2014-08.org.nvmexpress:uuid:8f1d0c5e-0000-4000-8000-00000000be7c';
const KV_CAPACITY_BYTES = 64 * 2 ** 20;

export interface SocketDrive {
  readonly drive: TemporaryDrive;
  readonly loop: LoopWatch;
  /** Connects the SDK by this kind of socket; over TCP without memory regions. */
  connect(kind: SocketKind): Promise<DriveClient>;
  /** A queue of that client's controller that is free. */
  queueOf(client: DriveClient): QueuePlace;
}

/** Formats a drive, starts it with a TCP port, lets `work` measure, and removes everything. */
export async function withSocketDrive(
  options: BenchOptions,
  capacity: { readonly blockCapacityBytes: number; readonly kvCapacityBytes?: number },
  work: (drive: SocketDrive) => Promise<void>,
): Promise<void> {
  const workers = options.workers === undefined ? [] : ['--workers', String(options.workers)];
  const kernels = options.kernels === undefined ? [] : ['--kernels', options.kernels];
  const drive = await startTemporaryDrive({
    format: { kvCapacityBytes: KV_CAPACITY_BYTES, ...capacity },
    start: ['--tcp', '127.0.0.1:0', ...workers, ...kernels],
  });
  const { drive: running, adminAddress = '' } = locateDrive(drive.folder);
  const loop = new LoopWatch(adminAddress);
  // The SDK has queue 1 of each controller.
  let nextQueueId = 2;
  try {
    await work({
      drive,
      loop,
      connect: (kind) => {
        const address = kind === 'unix' ? drive.address : `tcp:${running?.tcp}`;
        return DriveClient.connect(address, { hostNqn: HOST_NQN });
      },
      queueOf: (client) => ({
        connectOptions: connectOptions(parseAddress(client.address)),
        controllerId: client.identity.cntlid,
        queueId: nextQueueId++,
        hostNqn: HOST_NQN,
        subsystemNqn: ANY_SUBSYSTEM_NQN,
      }),
    });
  } finally {
    await loop.close();
    await drive.stop();
  }
}
