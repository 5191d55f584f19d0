/** A drive in a process of its own, and a client that must find its data again whatever others do to the drive. */
import assert from 'node:assert/strict';
import { type ConnectOptions, DriveClient, locateDrive, type RunningDrive, type Sequence } from '../../client/index.ts';
import type { DaemonProcess } from '../tools/daemon-process.ts';

export const BLOCK_BYTES = 4096;
export const shape = { layerCount: 2, kvHeadCount: 2, headDimK: 16, elementTypeK: 'f32', groupTokens: 16 } as const;
const ROW_ELEMENTS = shape.kvHeadCount * shape.headDimK;

/** Rows of tokens [position, position + tokenCount): every number tells where it stands. */
export const rows = (position: number, tokenCount: number, seed = 0): Float32Array =>
  Float32Array.from({ length: tokenCount * ROW_ELEMENTS }, (_, i) => Math.sin(seed + position * ROW_ELEMENTS + i));

export const blocks = (lba: number, blockCount: number, round = 0): Uint8Array => {
  const words = new Uint32Array((blockCount * BLOCK_BYTES) / 4);
  for (let i = 0; i < words.length; i++) words[i] = (round << 20) + lba * 1024 + i + 1;
  return new Uint8Array(words.buffer);
};

export function runningDrive(daemon: DaemonProcess): RunningDrive {
  const { drive } = locateDrive(daemon.folder);
  assert.ok(drive !== undefined);
  return drive;
}

export const connectTo = (daemon: DaemonProcess, options: ConnectOptions = {}): Promise<DriveClient> =>
  DriveClient.connect(`unix:${runningDrive(daemon).nvmeSocket}`, options);

/** Data in both namespaces, flushed. */
export class Witness {
  readonly client: DriveClient;
  readonly sequence: Sequence;
  static readonly tokenCount = 40;
  static readonly firstLba = 3;
  static readonly blockCount = 70;

  private constructor(client: DriveClient, sequence: Sequence) {
    this.client = client;
    this.sequence = sequence;
  }

  static async write(client: DriveClient): Promise<Witness> {
    const sequence = await client.kv.create(shape, { label: 'witness' });
    for (let layer = 0; layer < shape.layerCount; layer++) {
      await sequence.append(layer, 0, rows(0, Witness.tokenCount, layer), rows(0, Witness.tokenCount, layer + 5));
    }
    await client.block.write(Witness.firstLba, blocks(Witness.firstLba, Witness.blockCount));
    await client.kv.flush();
    return new Witness(client, sequence);
  }

  /** The same data through another connection, as after a restart. */
  async through(client: DriveClient): Promise<Witness> {
    return new Witness(client, await client.kv.open(this.sequence.id));
  }

  async check(): Promise<void> {
    for (let layer = 0; layer < shape.layerCount; layer++) {
      const { keys, values } = await this.sequence.readBack({ layer });
      assert.deepEqual(keys, rows(0, Witness.tokenCount, layer));
      assert.deepEqual(values, rows(0, Witness.tokenCount, layer + 5));
    }
    const found = await this.client.block.read(Witness.firstLba, Witness.blockCount);
    assert.ok(Buffer.compare(found, blocks(Witness.firstLba, Witness.blockCount)) === 0, 'blocks of the witness');
  }
}
