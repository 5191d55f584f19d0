/** What every benchmark gets, and a drive of its own for each shape. */
import { DriveClient } from '../../client/index.ts';
import { controllerVendorArea } from '../../spec/identify.ts';
import type { KernelName } from '../../daemon/kernels/contract.ts';
import type { Progress } from '../cli/output.ts';
import { percentText } from '../cli/quantity.ts';
import { startTemporaryDrive, type TemporaryDrive } from '../cli/temporary-drive.ts';
import { capacityBytesFor, fillSequence } from './drive-layers.ts';
import type { BenchOutput } from './report.ts';
import type { BenchShape } from './shapes.ts';
import type { Sequence } from '../../client/index.ts';

export interface BenchOptions {
  readonly quick: boolean;
  readonly rounds: number;
  readonly kernels: string | undefined;
  readonly workers: number | undefined;
  /** More options of the daemons. */
  readonly start?: readonly string[];
  /** Of the drives; default ideal. */
  readonly profile?: string;
}

export interface Bench {
  readonly name: string;
  readonly summary: string;
  run(options: BenchOptions, output: BenchOutput): Promise<void>;
}

export interface BenchDrive {
  readonly drive: TemporaryDrive;
  readonly client: DriveClient;
  readonly sequence: Sequence;
  readonly kernels: KernelName;
  /** Threads that the drive computes on, at least 1. */
  readonly threadCount: number;
}

const BLOCK_CAPACITY_BYTES = 16 * 2 ** 20;

/** Formats and fills a drive for `shape`, lets `work` measure, and removes everything. */
export async function withBenchDrive(
  shape: BenchShape,
  options: BenchOptions,
  progress: Progress,
  work: (bench: BenchDrive) => Promise<void>,
): Promise<void> {
  const start = [
    ...(options.start ?? []),
    ...(options.kernels === undefined ? [] : ['--kernels', options.kernels]),
    ...(options.workers === undefined ? [] : ['--workers', String(options.workers)]),
  ];
  progress.update(`${shape.name}: starting a drive …`);
  const { profile } = options;
  const format = { blockCapacityBytes: BLOCK_CAPACITY_BYTES, kvCapacityBytes: capacityBytesFor(shape), profile };
  const drive = await startTemporaryDrive({ format, start });
  try {
    const client = await DriveClient.connect(drive.address);
    try {
      const sequence = await fillSequence(client, shape, (share) =>
        progress.update(`${shape.name}: filling ${shape.layerCount} layers, ${percentText(share)}`),
      );
      const { kernelSet, computeWorkerCount } = controllerVendorArea.decode(client.identity.vs);
      const kernels = kernelSet as KernelName;
      await work({ drive, client, sequence, kernels, threadCount: Math.max(1, computeWorkerCount) });
    } finally {
      await client.close();
    }
  } finally {
    progress.clear();
    await drive.stop();
  }
}
