/** A client that shortens and lengthens the memory it shares with the drive while its commands run. */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, openSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { type DriveClient, DriveCommandError, RegionUnavailableError, type Sequence } from '../../client/index.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { connectTo, runningDrive, Witness } from './served-drive.ts';

const shape = { layerCount: 1, kvHeadCount: 8, headDimK: 64, elementTypeK: 'f32', groupTokens: 16 } as const;
const TOKENS = 512;
const ROUNDS = 40;

const daemon = new DaemonProcess('256MiB');
let witness: Witness;
let bystander: DriveClient;

before(async () => {
  await daemon.start(['--tcp', 'off']);
  bystander = await connectTo(daemon);
  witness = await Witness.write(bystander);
});
after(async () => {
  await bystander?.close();
  await daemon.remove();
});

const regionPaths = (): string[] => {
  const folder = join(dirname(runningDrive(daemon).nvmeSocket), 'regions');
  return readdirSync(folder).map((name) => join(folder, name));
};

test('its commands fail with a status, or not at all; nothing of anybody else is touched', async () => {
  const others = new Set(regionPaths());
  const client = await connectTo(daemon);
  const rows = Float32Array.from({ length: TOKENS * shape.kvHeadCount * shape.headDimK }, (_, i) => Math.sin(i));
  const sequence = await client.kv.create(shape);
  await sequence.append(0, 0, rows, rows);
  // Queries and outputs go through the region, too.
  const queries = rows.subarray(0, 256 * shape.headDimK * shape.kvHeadCount);
  const regions = regionPaths().filter((path) => !others.has(path));
  assert.ok(regions.length > 0);
  const files = regions.map((path) => openSync(path, 'r+'));
  const codes = new Map<string, number>();
  const attempt = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
      codes.set('success', (codes.get('success') ?? 0) + 1);
    } catch (error) {
      if (error instanceof RangeError || error instanceof TypeError) throw error;
      const code = error instanceof DriveCommandError || error instanceof RegionUnavailableError ? error.code : 'other';
      codes.set(code, (codes.get(code) ?? 0) + 1);
    }
  };
  const restless = async (): Promise<void> => {
    let doomed: Sequence | undefined;
    for (let round = 0; round < ROUNDS; round++) {
      doomed ??= await client.kv.create(shape);
      const target = doomed;
      const { length } = await Promise.all([
        attempt(() => target.append(0, 0, rows, rows)),
        attempt(() => client.attend([{ sequence, layer: 0, queryHeadsPerKvHead: 1, queries }])),
        attempt(() => sequence.readBack({ layer: 0 })),
      ]);
      assert.equal(length, 3);
      if (round % 4 === 3) {
        await doomed.reclaim();
        doomed = undefined;
      }
    }
  };
  let running = true;
  const worked = restless().finally(() => (running = false));
  for (let turn = 0; running; turn++) {
    for (const file of files) ftruncateSync(file, turn % 3 === 0 ? 16 * 2 ** 20 : (turn % 7) * 4000);
    if (turn % 50 === 0) await witness.check();
    await new Promise((resolve) => setImmediate(resolve));
  }
  await worked;
  for (const file of files) {
    ftruncateSync(file, 16 * 2 ** 20);
    closeSync(file);
  }
  assert.ok((codes.get('sglDataBlock') ?? 0) > 0, `the drive noticed: ${JSON.stringify([...codes])}`);
  assert.equal(codes.get('other'), undefined, JSON.stringify([...codes]));
  // With its region whole again everything works, in the same association.
  const again = await client.kv.create(shape);
  assert.equal(await again.append(0, 0, rows, rows), TOKENS);
  assert.deepEqual((await again.readBack({ layer: 0 })).keys, rows);
  await client.close();
  await witness.check();
});
