import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NandArray } from '../../daemon/nand/array.ts';
import { oobBytesPerPage, planGeometry, ppnOf } from '../../daemon/nand/geometry.ts';
import { MediaMemory } from '../../daemon/nand/media-memory.ts';

const geometry = planGeometry({
  blockCapacityBytes: 2 ** 16,
  kvCapacityBytes: 2 ** 16,
  pageSizeBytes: 4096,
  channelCount: 2,
  diesPerChannel: 1,
  overProvisioning: 0.07,
});
const page = new Uint8Array(4096).fill(1);
const oob = new Uint8Array(oobBytesPerPage(geometry));
const header = new Uint8Array(64);

function makeArray(): NandArray {
  return new NandArray(geometry, new MediaMemory(geometry));
}

test("pages of a die's block are programmed in order and once", () => {
  const array = makeArray();
  array.erase(3, header);
  const program = (superblock: number, number: number, unit: number): boolean =>
    array.program(ppnOf(geometry, superblock, number, unit), page, oob, 'kv');
  program(3, 0, 0);
  assert.throws(() => program(3, 0, 0), /out of order: page 1 is next/, 'programmed twice');
  assert.throws(() => program(3, 2, 0), /out of order: page 1 is next/, 'a page left out');
  program(3, 0, 1);
  program(3, 1, 0);
  assert.throws(() => program(4, 0, 0), /out of order: page 4 is next/, 'not erased');
  assert.deepEqual(array.counters.programs, { block: 0, kv: 3, gc: 0, scrub: 0, wear: 0 });
  assert.equal(array.freePages(3), geometry.pagesPerSuperblock - 3);
});

test('an erase lets it be programmed from the start, all of it', () => {
  const array = makeArray();
  for (let life = 0; life < 2; life++) {
    array.erase(5, header);
    for (let number = 0; number < geometry.pagesPerBlock; number++) {
      for (let unit = 0; unit < geometry.unitCount; unit++) {
        assert.equal(array.nextPpn(5, unit), ppnOf(geometry, 5, number, unit));
        array.program(ppnOf(geometry, 5, number, unit), page, oob, 'block');
      }
    }
    assert.equal(array.freePages(5), 0);
    assert.throws(() => array.program(ppnOf(geometry, 5, 0, 0), page, oob, 'block'), /out of order/);
  }
  assert.equal(array.counters.superblocksErased, 2);
});

test('pages that are not programmed are not read, whole pages are programmed', async () => {
  const array = makeArray();
  array.erase(0, header);
  array.program(0, page, oob, 'gc');
  const target = new Uint8Array(2 * 4096);
  await array.read(0, target.subarray(0, 4096), 'gc');
  assert.equal(Buffer.compare(target.subarray(0, 4096), page), 0);
  await assert.rejects(array.read(0, target, 'gc'), /which is not programmed/);
  assert.throws(() => array.program(1, page.subarray(1), oob, 'gc'), /a program is a whole page/);
  assert.equal(array.counters.reads.gc, 1);
});
