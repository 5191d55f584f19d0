/** Daemons over a drive that was filled in this process, which is much faster than through a socket. */
import { DriveClient, type PreparedAttend, type Sequence } from '../../client/index.ts';
import type { Progress } from '../cli/output.ts';
import { startDriveOver, type TemporaryDrive } from '../cli/temporary-drive.ts';
import type { BenchShape } from './shapes.ts';
import { StoredLayers } from './stored-layers.ts';

const PAGE_BYTES = 16_384;

/** One connection to a daemon, and the sequence that the drive holds. */
export interface Served {
  readonly drive: TemporaryDrive;
  readonly client: DriveClient;
  readonly sequence: Sequence;
}

/** A drive with one sequence, as prefill leaves it. `work` gets its folder, for one daemon after another; then it is removed. */
export async function withStoredDrive(
  shape: BenchShape,
  progress: Progress,
  work: (folder: string) => Promise<void>,
): Promise<void> {
  progress.update(`${shape.name}: writing …`);
  const layers = await StoredLayers.open(shape, { pageSizeBytes: PAGE_BYTES, storages: ['prefill'] });
  try {
    await work(await layers.handOver());
  } finally {
    progress.clear();
    await layers.close();
  }
}

/** Starts a daemon with the native kernels over the drive for as long as `work` takes. */
export async function serveDrive<T>(
  folder: string,
  start: readonly string[],
  work: (served: Served) => Promise<T>,
): Promise<T> {
  const drive = await startDriveOver(folder, ['--kernels', 'native', ...start]);
  try {
    const client = await DriveClient.connect(drive.address);
    try {
      const [id] = await client.kv.list();
      return await work({ drive, client, sequence: await client.kv.open(id!) });
    } finally {
      await client.close();
    }
  } finally {
    await drive.stop();
  }
}

/** One query token for each of `batch` entries; what each sees is set before a post. */
export async function prepareBatch(
  { client, sequence }: Pick<Served, 'client' | 'sequence'>,
  queryHeadsPerKvHead: number,
  batch: number,
  queryHeadCount?: number,
): Promise<PreparedAttend> {
  const entries = Array.from({ length: batch }, () => ({ sequence, layer: 0, queryHeadsPerKvHead, queryHeadCount }));
  const request = await client.prepareAttend(entries, {});
  for (const { queries } of request.entries)
    for (let i = 0; i < queries.length; i++) queries[i] = Math.sin(i * 12.9898);
  return request;
}
