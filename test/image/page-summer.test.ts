import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { test } from 'node:test';
import { createArena } from '../../daemon/base/arena.ts';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { InlineSummer, type SumRequest, type SumResult } from '../../daemon/image/page-summer.ts';
import { ThreadedSummer } from '../../daemon/image/threaded-summer.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { cellOffset, oobBytesPerPage, planGeometry } from '../../daemon/nand/geometry.ts';
import { createMediaFiles, MediaFile } from '../../daemon/nand/media-file.ts';

const geometry = planGeometry({
  blockCapacityBytes: 2 ** 20,
  kvCapacityBytes: 2 ** 20,
  pageSizeBytes: 16_384,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.1,
});

test('threads sum pages and slots as the calling thread does; a page that cannot be read is told', async () => {
  const folder = mkdtempSync(`${tmpdir()}/attndrive-sums-`);
  const uuid = new Uint8Array(16).fill(1);
  await createMediaFiles(folder, geometry, uuid);
  const media = MediaFile.open(folder, geometry, uuid);
  const random = createSeededRandom(4);
  const pages = Array.from({ length: 100 }, () => random.bytes(geometry.pageSizeBytes));
  pages.forEach((page, ppn) => media.program(ppn, page, new Uint8Array(oobBytesPerPage(geometry))));
  const arena = createArena(2 ** 20);
  const kernels = loadKernels('wasm', { memory: arena.memory });
  const inline = new InlineSummer({ media, geometry, arena, kernels });
  const { cellsDescriptor } = media.files;
  const threaded = new ThreadedSummer({ threadCount: 2, kernels: 'wasm' }, { cellsDescriptor, geometry });
  const requests: SumRequest[] = [
    { firstPpn: 0, pageCount: 64, bySlot: false },
    { firstPpn: 3, pageCount: 1, bySlot: true },
    { firstPpn: 60, pageCount: 40, bySlot: true },
  ];
  for (const summer of [inline, threaded]) {
    // As many at once as it can work on.
    const results: SumResult[] = [];
    if (summer.concurrency === 1) for (const request of requests) results.push(await summer.sum(request));
    else results.push(...(await Promise.all(requests.map((request) => summer.sum(request)))));
    for (const [i, { firstPpn, pageCount, bySlot }] of requests.entries()) {
      const units = pages.slice(firstPpn, firstPpn + pageCount).flatMap((page) => {
        if (!bySlot) return [page];
        return Array.from({ length: 4 }, (_, slot) => page.subarray(slot * 4096, (slot + 1) * 4096));
      });
      assert.deepEqual(results[i], { sums: Uint32Array.from(units, (bytes) => crc32c(bytes)), unreadable: [] });
    }
  }
  truncateSync(`${folder}/media/cells.bin`, cellOffset(geometry, 70));
  for (const summer of [inline, threaded]) {
    const { unreadable } = await summer.sum({ firstPpn: 60, pageCount: 12, bySlot: false });
    assert.deepEqual(
      unreadable.map(({ ppn }) => ppn),
      [70, 71],
    );
    assert.match(unreadable[0]!.why, /the file is too short/);
  }
  const { freeBytes } = arena;
  await Promise.all([inline.close(), threaded.close()]);
  assert.equal(arena.freeBytes, freeBytes + geometry.pageSizeBytes);
  await media.close();
  rmSync(folder, { recursive: true });
});
