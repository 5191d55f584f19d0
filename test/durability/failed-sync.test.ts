/** A disk that fails a sync: from then on nothing that changes could be promised, so nothing changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type FileSystem, type OpenHow, systemFileSystem } from '../../daemon/base/file-system.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { formatDrive } from '../../daemon/ftl/format.ts';
import { openFolder } from '../../daemon/ftl/ftl.ts';
import { lbaContent, lbaVersion } from '../ftl/open-drive.ts';
import { appendRows, assertTokens, createSequence, tokenRange } from '../kv/fixture.ts';
import { cellsIos, smallDrive } from './recorded-run.ts';
import { emptyFolder, temporaryFolder } from './temporary.ts';
import { openWholeFtl } from './whole-ftl.ts';

const parent = temporaryFolder();
const inputOutputError = (): never => {
  throw Object.assign(new Error('EIO: i/o error, fdatasync'), { code: 'EIO' });
};

/** The system's, but for syncs of files and folders whose path ends so. */
class FailingDisk implements FileSystem {
  failing: string | undefined;
  readonly #paths = new Map<number, string>();
  readonly close = systemFileSystem.close;
  readonly write = systemFileSystem.write;
  readonly resize = systemFileSystem.resize;
  readonly makeFolder = systemFileSystem.makeFolder;
  readonly rename = systemFileSystem.rename;
  readonly remove = systemFileSystem.remove;

  open(path: string, how: OpenHow): number {
    const descriptor = systemFileSystem.open(path, how);
    this.#paths.set(descriptor, path);
    return descriptor;
  }

  #check(path: string): void {
    if (this.failing !== undefined && path.endsWith(this.failing)) inputOutputError();
  }

  async sync(descriptor: number): Promise<void> {
    this.#check(this.#paths.get(descriptor)!);
    await systemFileSystem.sync(descriptor);
  }

  async syncFolder(path: string): Promise<void> {
    this.#check(path);
    await systemFileSystem.syncFolder(path);
  }
}

const cases = ['cells.bin', 'oob.bin', 'blocks.bin', '.log'].flatMap((failing) =>
  (['flush', 'syncStaging'] as const).flatMap((how) => cellsIos.map((cells) => ({ failing, how, cells }))),
);
for (const { failing, how, cells } of cases) {
  const title = `after a sync of ${failing} failed in ${how}, nothing changes until a restart (cells ${cells.name})`;
  test(title, { skip: cells.skip }, async () => {
    const random = createSeededRandom(1);
    const folder = `${emptyFolder(parent, 'work')}/drive`;
    await formatDrive(folder, smallDrive, random);
    const disk = new FailingDisk();
    const drive = await openWholeFtl(openFolder(folder, disk, cells.io), random);
    const { blocks, durability } = drive.ftl;
    for (let lba = 0; lba < 9; lba++) await blocks.write(lba, 1, lbaContent(lba, 1), false);
    const id = createSequence(drive, { layerCount: 1, groupTokens: 4 });
    await appendRows(drive, id, 0, 0, tokenRange(0, 10));
    await durability.flush();
    await blocks.write(3, 1, lbaContent(3, 2), false);
    disk.failing = failing;
    await assert.rejects(durability[how](), { code: 'writeFault', message: /sync of .*an input\/output error/ });
    assert.ok(durability.hasFailed);
    // The disk answers again, and might say yes to what it has lost.
    disk.failing = undefined;
    const refused = { code: 'writeFault', message: /an earlier sync failed \(.*\); reads go on, restart the drive/ };
    await assert.rejects(durability.flush(), refused);
    await assert.rejects(durability.syncStaging(), refused);
    await assert.rejects(blocks.write(4, 1, lbaContent(4, 2), false), refused);
    await assert.rejects(blocks.deallocate(5, 1), refused);
    await assert.rejects(appendRows(drive, id, 0, 10, tokenRange(10, 1)), refused);
    await assert.rejects(drive.store.truncate(id, 0, 5), refused);
    await assert.rejects(drive.store.reclaim(id), refused);
    assert.throws(() => createSequence(drive), refused);
    await assert.rejects(drive.store.fork(id, 3, { id: 0n, label: '', leaseSeconds: 0, owner: 1n }), refused);
    for (let lba = 0; lba < 9; lba++) assert.equal(await lbaVersion(drive.ftl, lba), lba === 3 ? 2 : 1);
    await assertTokens(drive, id, 0, tokenRange(0, 10));
    await assert.rejects(drive.close(), refused);
    const again = await openWholeFtl(openFolder(folder), random);
    for (let lba = 0; lba < 9; lba++) assert.ok((await lbaVersion(again.ftl, lba)) >= 1);
    await assertTokens(again, id, 0, tokenRange(0, 10));
    await again.close();
  });
}
