/** A daemon with something known in it, for the tests of the tools that look into a drive that is not running. */
import { DriveClient, locateDrive } from '../../client/index.ts';
import type { DaemonProcess } from './daemon-process.ts';

/** Starts the daemon and makes durable: LBAs 0 to 15, and sequence 1 with 40 tokens in 2 layers, of which 32 are in pages. */
export async function startKnownDrive(daemon: DaemonProcess): Promise<void> {
  await daemon.start();
  const client = await DriveClient.connect(locateDrive(daemon.folder).address);
  await client.block.write(0, new Uint8Array(16 * 4096).fill(0xb1));
  const shape = { layerCount: 2, kvHeadCount: 2, headDimK: 64, elementTypeK: 'f16', groupTokens: 16 } as const;
  const sequence = await client.kv.create(shape, { label: 'kept' });
  const rows = new Float32Array(40 * 2 * 64).fill(0.5);
  for (const layer of [0, 1]) await sequence.append(layer, 0, rows, rows);
  await client.kv.flush();
  await client.close();
}
