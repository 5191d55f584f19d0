/** What the check finds, and that it finds nothing where nothing is wrong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import type { Finding, FindingKind } from '../../daemon/image/finding.ts';
import type { LostDataSummary } from '../../daemon/image/lost-data.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { oobBytesPerPage } from '../../daemon/nand/geometry.ts';
import { oobEntry, superblockHeader } from '../../spec/media-format/oob.ts';
import { UNMAPPED } from '../../daemon/ftl/segmented-map.ts';
import { MemoryDriveStores } from '../ftl/memory-stores.ts';
import { appendRows, createSequence, tokenRange } from '../kv/fixture.ts';
import { usedSlots } from './in-use.ts';
import { assertSound, findingsOf } from './sound-drive.ts';
import { openWorkingDrive, work } from './working-drive.ts';

const request = { blockCapacityBytes: 2 ** 20, kvCapacityBytes: 2 * 2 ** 20, pageSizeBytes: 8192, channelCount: 2 };

test('whatever was done, and however it ended, nothing is wrong', async () => {
  const runs = Number(process.env['ATTNDRIVE_TEST_RUNS'] ?? 3);
  for (let seed = 1; seed <= runs; seed++) {
    const random = createSeededRandom(seed);
    let drive = new MemoryDriveStores(request);
    await assertSound(drive.stores(), 'a new drive');
    for (let life = 0; life < 5; life++) {
      const opened = await openWorkingDrive(drive.stores(), random);
      await work(opened, random, 120);
      if (life % 2 === 0) void opened.ftl.durability.flush().catch(() => undefined);
      const how = life === 2 ? 'clean' : 'killed';
      const left = how === 'clean' ? drive : drive.afterPowerCut(random);
      await opened.end(how);
      await assertSound(left.stores(), `seed ${seed}, life ${life}, ${how}`);
      drive = left;
    }
  }
});

/** A drive with a known content, shut down in order or killed after a flush. */
async function knownDrive(how: 'clean' | 'killed'): Promise<{
  drive: MemoryDriveStores;
  parent: bigint;
  child: bigint;
  slotOf: (lba: number) => number;
  ppnOf: (lpn: number) => number;
  lpnOf: (id: bigint, layer: number, group: number, head: number, part: 0 | 1) => number;
}> {
  const random = createSeededRandom(77);
  const drive = new MemoryDriveStores(request);
  const opened = await openWorkingDrive(drive.stores(), random);
  const { ftl, store } = opened;
  await work(opened, random, 150);
  for (const id of store.list(0n, 100)) await store.reclaim(id);
  await ftl.blocks.write(10, 5, random.bytes(5 * 4096), false);
  // The last one stays in the write cache.
  let last = 14;
  while (ftl.blocks.map.get(last) !== UNMAPPED) await ftl.blocks.write(++last, 1, random.bytes(4096), false);
  const parent = createSequence(opened, { layerCount: 2, groupTokens: 8 });
  await appendRows(opened, parent, 0, 0, tokenRange(0, 29));
  await appendRows(opened, parent, 1, 0, tokenRange(0, 16));
  const child = await store.fork(parent, 20, { id: 0n, label: 'child', leaseSeconds: 0, owner: 3n });
  await appendRows(opened, child, 0, 20, tokenRange(500, 10));
  await ftl.durability.flush();
  const slots = ftl.blocks.map.entries.slice();
  const pages = ftl.kv.map.entries.slice();
  const tables = new Map<string, number>();
  for (const id of [parent, child]) {
    for (const layer of [0, 1]) {
      const view = store.view(id, layer);
      for (let group = 0; group * 8 < view.flashTokenCount; group++) {
        for (const head of [0, 1]) {
          for (const part of [0, 1] as const) {
            tables.set([id, layer, group, head, part].join(), view.page(group, head, part));
          }
        }
      }
      view.release();
    }
  }
  await opened.end(how);
  await assertSound(drive.stores(), 'as it was left');
  return {
    drive,
    parent,
    child,
    slotOf: (lba) => slots[lba]!,
    ppnOf: (lpn) => pages[lpn]!,
    lpnOf: (...place) => tables.get(place.join())!,
  };
}

const kindsOf = (findings: readonly Finding[]): FindingKind[] => [...new Set(findings.map(({ kind }) => kind))];
const nothing: Omit<LostDataSummary, 'sequences'> = { lbaCount: 0, lbas: [], isMoreUnknown: false };
const tokens = (sequenceId: bigint, layer: number, start: number, end: number) => ({
  sequenceId,
  isWhole: false,
  layers: [{ layer, tokens: [{ start, end }] }],
});

/** Flips a random bit of a range. */
function flip(bytes: Uint8Array, from: number, count: number, seed: number): void {
  const random = createSeededRandom(seed);
  bytes[from + (random.nextUint32() % count)]! ^= 1 << (random.nextUint32() % 8);
}

for (const how of ['clean', 'killed'] as const) {
  test(`a bit that flips in a block is that block; ${how}`, async () => {
    const { drive, slotOf } = await knownDrive(how);
    for (const [area, kind, unit] of [
      [drive.media.cells, 'data', 4096],
      [drive.media.oob, 'entry', oobEntry.sizeBytes],
    ] as const) {
      for (let seed = 1; seed <= 12; seed++) {
        flip(area, slotOf(12) * unit, unit, seed);
        const { findings, result } = await findingsOf(drive.stores());
        assert.deepEqual(kindsOf(findings), [kind], `seed ${seed}`);
        assert.match(findings[0]!.text, /physical page \d+ \(superblock \d+, .*\), slot \d, LBA 12: its/);
        const lost = { lbaCount: 1, lbas: [{ start: 12, end: 13 }], sequences: [], isMoreUnknown: false };
        assert.deepEqual(result.lost, lost);
        flip(area, slotOf(12) * unit, unit, seed);
      }
    }
    await assertSound(drive.stores(), 'all bits are back');
  });

  test(`a bit that flips in a KV page is lost to all who hold it; ${how}`, async () => {
    const { drive, parent, child, ppnOf, lpnOf } = await knownDrive(how);
    const { pageSizeBytes } = drive.geometry;
    const shared = ppnOf(lpnOf(parent, 0, 1, 1, 1));
    const own = ppnOf(lpnOf(parent, 1, 1, 0, 0));
    for (const [area, kind, unit, size] of [
      [drive.media.cells, 'data', pageSizeBytes, pageSizeBytes],
      [drive.media.oob, 'entry', oobBytesPerPage(drive.geometry), oobEntry.sizeBytes],
    ] as const) {
      for (const [ppn, sequences] of [
        [shared, [tokens(parent, 0, 8, 16), tokens(child, 0, 8, 16)]],
        [own, [tokens(parent, 1, 8, 16), tokens(child, 1, 8, 16)]],
      ] as const) {
        flip(area, ppn * unit, size, ppn);
        const { findings, result } = await findingsOf(drive.stores());
        assert.deepEqual(kindsOf(findings), [kind]);
        assert.match(
          findings[0]!.text,
          new RegExp(`physical page ${ppn} .*; group 1 of [KV], head \\d, layer \\d, sequence`),
        );
        assert.deepEqual(result.lost, { ...nothing, sequences });
        flip(area, ppn * unit, size, ppn);
      }
    }
  });
}

test('random flips are found where something in use lies, and only there', async () => {
  const { drive } = await knownDrive('clean');
  const { geometry, media } = drive;
  const { inUse, withoutEntry } = await usedSlots(drive);
  const random = createSeededRandom(5);
  for (let i = 0; i < 80; i++) {
    const area = i % 2 === 0 ? media.cells : media.oob;
    const unit = i % 2 === 0 ? 4096 : oobEntry.sizeBytes;
    // Half of them where something is, since most of a drive is empty.
    const used = [...inUse];
    const slot = i % 4 < 2 ? used[random.nextUint32() % used.length]! : random.nextUint32() % (geometry.pageCount * 2);
    const at = slot * unit + (random.nextUint32() % unit);
    const bit = 1 << (random.nextUint32() % 8);
    // Of a KV page all cells count, and the entry of its first slot.
    const counts = inUse.has(slot) && !(i % 2 === 1 && withoutEntry.has(slot));
    area[at]! ^= bit;
    const { findings } = await findingsOf(drive.stores());
    assert.equal(findings.length > 0, counts, `slot ${slot}, byte ${at % unit} of ${i % 2 === 0 ? 'cells' : 'oob'}`);
    area[at]! ^= bit;
  }
});

test('a header of a superblock in use that is damaged or empty is named, and costs nothing', async () => {
  const { drive, slotOf } = await knownDrive('killed');
  const superblock = Math.floor(slotOf(12) / (drive.geometry.pagesPerSuperblock * 2));
  const at = superblock * superblockHeader.sizeBytes;
  for (let seed = 0; seed < 10; seed++) {
    flip(drive.media.headers, at, superblockHeader.sizeBytes, seed);
    const { findings, result } = await findingsOf(drive.stores());
    assert.deepEqual(kindsOf(findings), ['superblockHeader']);
    assert.match(
      findings[0]!.text,
      new RegExp(`header of superblock ${superblock}: is damaged; \\d+ of its slots are in use`),
    );
    assert.deepEqual(result.lost, { ...nothing, sequences: [] });
    flip(drive.media.headers, at, superblockHeader.sizeBytes, seed);
  }
  const before = drive.media.headers.slice(at, at + superblockHeader.sizeBytes);
  drive.media.headers.fill(0, at, at + superblockHeader.sizeBytes);
  const { findings } = await findingsOf(drive.stores());
  assert.match(findings[0]!.text, /is empty/);
  drive.media.headers.set(before, at);
});

test('a staged record that is damaged or gone is named with what it held', async () => {
  const { drive, parent, child } = await knownDrive('killed');
  const [segment] = drive.staging.list();
  const { bytes } = drive.staging.segments.get(segment!)!;
  const whole = bytes.slice();
  // In the first record: it and everything behind it.
  for (let seed = 0; seed < 10; seed++) {
    flip(bytes, 64, 32, seed);
    const { findings, result } = await findingsOf(drive.stores());
    assert.ok(kindsOf(findings).includes('stagingLog'));
    assert.match(findings.map(({ text }) => text).join('\n'), /staging segment \d+ is damaged at byte 64/);
    const lost = result.lost.sequences.map(({ sequenceId }) => sequenceId);
    assert.deepEqual(lost, [parent, child], 'their tails');
    assert.ok(result.lost.lbaCount > 0, 'what was in the write cache');
    bytes.set(whole);
  }
  drive.staging.segments.delete(segment!);
  const { findings } = await findingsOf(drive.stores());
  assert.match(findings.map(({ text }) => text).join('\n'), new RegExp(`staging segment ${segment} is missing`));
});

const keyOf = (namespace: number, ...key: (string | number)[]): string => JSON.stringify([namespace, ...key]);
const keyIn = (text: string): [number, ...(string | number)[]] => JSON.parse(text) as [number, ...(string | number)[]];
const idText = (id: bigint): string => id.toString(16).padStart(16, '0');

/** Changes one record in a copy of the drive's metadata, looks, and puts everything back. */
async function withRecord(
  drive: MemoryDriveStores,
  key: string,
  change: (value: never) => unknown,
): Promise<Awaited<ReturnType<typeof findingsOf>>> {
  const { meta } = drive;
  const [namespace, ...rest] = keyIn(key);
  const value = meta.get(namespace, rest);
  assert.ok(value !== undefined, key);
  const changed = change((value instanceof Uint8Array ? Uint8Array.from(value) : structuredClone(value)) as never);
  if (changed === undefined) meta.delete(namespace, rest);
  else meta.set(namespace, rest, changed);
  try {
    return await findingsOf(drive.stores());
  } finally {
    meta.set(namespace, rest, value);
  }
}

test('metadata that says what cannot be is named, record by record', async () => {
  const { drive, parent, child, slotOf, ppnOf, lpnOf } = await knownDrive('clean');
  const { blockMap, kvMap, kvSequences, kvLayers, drive: driveRecords, stagedBlocks } = metaNamespaces;
  const words = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const setWord = (index: number, value: number) => (bytes: Uint8Array) => {
    const copy = bytes.slice();
    words(copy)[index] = value;
    return copy;
  };
  const parentKey = keyOf(kvSequences, idText(parent));
  const tableKey = keyOf(kvLayers, idText(parent), 0, 0);
  const lpn = lpnOf(parent, 0, 1, 0, 0);
  const cases: [string, (value: never) => unknown, FindingKind, RegExp, (lost: LostDataSummary) => boolean][] = [
    [
      keyOf(blockMap, 0),
      setWord(10, slotOf(11)),
      'map',
      /LBA 11 is mapped to slot \d+, which has two owners/,
      (l) => l.lbaCount >= 1,
    ],
    [
      keyOf(blockMap, 0),
      setWord(10, 2 ** 31),
      'map',
      /LBA 10 is mapped to slot \d+, which is outside/,
      (l) => l.lbas[0]?.start === 10,
    ],
    [keyOf(blockMap, 0), setWord(10, ppnOf(lpn) * 2 + 1), 'map', /LBA 10 .* in a superblock of the KV/, () => true],
    [
      keyOf(blockMap, 0),
      (bytes: Uint8Array) => bytes.slice(4),
      'metadata',
      /segment 0 is \d+ bytes, must be/,
      (l) => l.lbas[0]?.start === 0,
    ],
    [
      keyOf(kvMap, 0),
      setWord(lpn, 2 ** 32 - 1),
      'map',
      /logical page \d+ has no place in the map; group 1 of K/,
      (l) => l.sequences.length === 2,
    ],
    [
      keyOf(kvMap, 0),
      setWord(lpn, ppnOf(lpnOf(parent, 0, 0, 0, 0))),
      'map',
      /which has two owners/,
      (l) => l.sequences.length === 2,
    ],
    [keyOf(kvMap, 0), () => 'nonsense', 'metadata', /segment 0 is string/, (l) => l.sequences.length === 2],
    [
      parentKey,
      () => undefined,
      'sequence',
      /block tables of sequence \w+, which has no record/,
      (l) => l.sequences[0]!.isWhole,
    ],
    [
      parentKey,
      (value: object) => ({ ...value, generations: [1] }),
      'sequence',
      /sequence record/,
      (l) => l.sequences[0]!.isWhole,
    ],
    [
      parentKey,
      (value: { shape: object }) => ({ ...value, shape: { ...value.shape, headDimK: 9999 } }),
      'sequence',
      /headDimK is 9999/,
      (l) => l.sequences[0]!.isWhole,
    ],
    [
      parentKey,
      (value: { lengths: number[] }) => ({ ...value, lengths: [90, 16] }),
      'sequence',
      /layer 0: the block table has 3 groups, must have 11/,
      (l) => l.sequences[0]!.layers[0]!.tokens[0]!.start === 24,
    ],
    [
      tableKey,
      () => undefined,
      'sequence',
      /the block table has 0 groups, must have 3/,
      (l) => l.sequences.length >= 1,
    ],
    [
      tableKey,
      setWord(1, 1_000_000),
      'sequence',
      /group 0 of V, head 0, layer 0, .* is logical page 1000000; there are/,
      (l) => l.sequences.length === 1,
    ],
    [
      tableKey,
      setWord(4, lpnOf(parent, 0, 0, 0, 0)),
      'tag',
      /which was programmed for group 0 of K, head 0, layer 0/,
      (l) => l.sequences[0]!.layers[0]!.tokens[0]!.start === 8,
    ],
    [
      keyOf(kvLayers, idText(child), 0, 0),
      setWord(4, lpnOf(parent, 1, 1, 0, 0)),
      'tag',
      /programmed for group 1 of K, head 0, layer 1/,
      (l) => l.sequences[0]!.sequenceId === child,
    ],
    [
      keyOf(driveRecords, 'state'),
      () => undefined,
      'opening',
      /nothing is there, but pages were programmed/,
      () => true,
    ],
    [
      keyOf(driveRecords, 'state'),
      (value: object) => ({ ...value, open: [{ superblock: 9999 }] }),
      'metadata',
      /open superblock 9999/,
      () => true,
    ],
    [
      keyOf(stagedBlocks, 'list'),
      () => [[10, 12_345]],
      'stagingLog',
      /the record of LBA 10, operation 12345, .* is missing/,
      (l) => l.lbas[0]?.start === 10,
    ],
    [keyOf(stagedBlocks, 'list'), () => 7, 'metadata', /list of staged blocks: must be pairs/, (l) => l.isMoreUnknown],
  ];
  for (const [key, change, kind, text, isLost] of cases) {
    const { findings, result } = await withRecord(drive, key, change);
    const all = findings.map((finding) => `${finding.kind}: ${finding.text}`).join('\n');
    assert.ok(kindsOf(findings).includes(kind), `${key} ${text}\n${all}`);
    assert.match(all, text);
    assert.ok(
      isLost(result.lost),
      `${key} ${text}: ${JSON.stringify(result.lost.sequences, (_, v: unknown) => String(v))}`,
    );
  }
  await assertSound(drive.stores(), 'everything is back');
});

test('a record of no known kind, and a page that nobody holds', async () => {
  const { drive } = await knownDrive('clean');
  const { meta } = drive;
  meta.set(77, [1], 2);
  assert.deepEqual(kindsOf((await findingsOf(drive.stores())).findings), ['metadata']);
  meta.delete(77, [1]);
  const entries = new Uint32Array(Uint8Array.from(meta.get(metaNamespaces.kvMap, [0]) as Uint8Array).buffer);
  entries[entries.length - 1] = 5;
  meta.set(metaNamespaces.kvMap, [0], new Uint8Array(entries.buffer));
  const { findings } = await findingsOf(drive.stores());
  assert.deepEqual(kindsOf(findings), ['leak']);
});

test('a page of other tokens in the right place, with a right entry and checksum, is found by its tag', async () => {
  const { drive, parent, ppnOf, lpnOf } = await knownDrive('killed');
  const ppn = ppnOf(lpnOf(parent, 0, 2, 1, 0));
  const at = ppn * oobBytesPerPage(drive.geometry);
  const { oob } = drive.media;
  const whole = oob.slice(at, at + oobEntry.sizeBytes);
  const view = new DataView(oob.buffer);
  const { group, generation, sequenceId, layer, head, part } = oobEntry.offsetOf;
  for (const [offset, text] of [
    [group, /which was programmed for group 3 of K/],
    [layer, /layer 1, sequence/],
    [head, /head 0, layer 0/],
    [part, /group 2 of V/],
    [sequenceId, /sequence \d+$/],
    [generation, /has pages of several generations/],
  ] as const) {
    oob[at + offset]! ^= 1;
    const end = at + oobEntry.sizeBytes - 4;
    view.setUint32(end, crc32c(oob.subarray(at, end)), true);
    const { findings, result } = await findingsOf(drive.stores());
    assert.deepEqual(kindsOf(findings), ['tag']);
    assert.match(findings[0]!.text, text);
    assert.deepEqual(result.lost.sequences, [tokens(parent, 0, 16, 24)]);
    oob.set(whole, at);
  }
});
