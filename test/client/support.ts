import { DriveClient } from '../../client/index.ts';
import { FakeDrive, type FakeDriveOptions } from './fake-drive.ts';
import { FakeKv } from './fake-kv.ts';

export interface Bench {
  readonly drive: FakeDrive;
  readonly kv: FakeKv;
  readonly client: DriveClient;
}

/** Runs `body` with a fake drive and a client connected to it, and takes both away again. */
export async function withDrive(
  options: FakeDriveOptions,
  body: (bench: Bench) => Promise<void>,
  clientOptions: Parameters<typeof DriveClient.connect>[1] = {},
): Promise<void> {
  const drive = new FakeDrive(options);
  const kv = new FakeKv(drive);
  try {
    const client = await DriveClient.connect(await drive.start(), { keepAliveMs: 0, ...clientOptions });
    try {
      await body({ drive, kv, client });
    } finally {
      await client.close();
    }
  } finally {
    await drive.stop();
  }
}
