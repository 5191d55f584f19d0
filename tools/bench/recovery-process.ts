/**
 * What the recovery benchmark does in processes of their own: MODE FOLDER [BYTES]. `fill` makes the metadata of a drive
 * that is mapped to the last page, as if it had been written and killed; `write` opens it, writes BYTES that are never
 * flushed, and dies; `open` opens it and says what that took.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { superblockHeader, superblockPools, SUPERBLOCK_MAGIC } from '../../spec/media-format/oob.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { crc32c } from '../../daemon/base/crc32c.ts';
import type { Logger } from '../../daemon/base/logger.ts';
import { systemRandom } from '../../daemon/base/random.ts';
import type { StateRecord } from '../../daemon/ftl/checkpoint.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';
import { readSuperblock } from '../../daemon/ftl/format.ts';
import { Ftl, openFolder } from '../../daemon/ftl/ftl.ts';
import { SEGMENT_ENTRIES, UNMAPPED } from '../../daemon/ftl/segmented-map.ts';
import { loadKernels, resolveKernels } from '../../daemon/kernels/loader.ts';
import { BlockTable } from '../../daemon/kv/block-table.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { Holdings } from '../../daemon/kv/holdings.ts';
import { encodeSequence, segmentKey, sequenceKey } from '../../daemon/kv/metadata-records.ts';
import { Layer, Sequence } from '../../daemon/kv/sequence.ts';
import { resolveShape, rowLayoutOf } from '../../daemon/kv/shape.ts';
import type { MetaChange, MetaStore } from '../../daemon/meta/contract.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { headerOffset } from '../../daemon/nand/geometry.ts';

const ARENA_BYTES = 256 * 2 ** 20;
const CHANGES_PER_COMMIT = 2048;
/** An 8-billion-parameter model with grouped queries. */
const shape = {
  layerCount: 32,
  kvHeadCount: 8,
  headDimK: 128,
  headDimV: 128,
  elementTypeK: 'f16',
  elementTypeV: 'f16',
  groupTokens: 0,
} as const;
const SEQUENCE_GROUPS = 128;
const WRITE_LBAS = 64;

/** Of what a drive logs while it opens: how many superblocks it has scanned. */
class ScanListener implements Logger {
  superblocksScanned = 0;
  readonly level = 'info';

  info(fields: Record<string, unknown>): void {
    this.superblocksScanned = Number(fields['superblocksScanned'] ?? this.superblocksScanned);
  }

  trace(): void {}
  debug(): void {}
  warn(): void {}
  error(): void {}
  child(): Logger {
    return this;
  }
}

/** Anonymous memory of this process. */
function anonymousBytes(): number {
  const [, kibibytes] = /RssAnon:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  return Number(kibibytes) * 1024;
}

async function openDrive(folder: string, logger: Logger) {
  const arena = createArena(ARENA_BYTES);
  const stores = openFolder(folder);
  const files = stores.media.files!;
  const media = { fileDescriptor: files.cellsDescriptor, sizeBytes: files.cellsSizeBytes };
  const kernels = loadKernels(resolveKernels('auto'), { memory: arena.memory, media });
  const sequences = new SequenceStore({ arena, kernels, clock: systemClock });
  const modules = { arena, kernels, clock: systemClock, random: systemRandom, logger, kvRecovery: sequences };
  const ftl = await Ftl.open(stores, modules);
  return { arena, ftl, sequences };
}

/** In commits of a size that a checkpoint might have. */
class Records {
  readonly #meta: MetaStore;
  #changes: MetaChange[] = [];

  constructor(meta: MetaStore) {
    this.#meta = meta;
  }

  async put(namespace: number, key: readonly (number | string)[], value: unknown): Promise<void> {
    this.#changes.push({ kind: 'put', namespace, key, value });
    if (this.#changes.length >= CHANGES_PER_COMMIT) await this.flush();
  }

  async flush(): Promise<void> {
    await this.#meta.commit(this.#changes);
    this.#changes = [];
  }
}

/** A map that names addresses from `first` on, one after another, `count` of them. */
async function putMap(records: Records, namespace: number, entryCount: number, first: number, count: number) {
  for (let segment = 0; segment * SEGMENT_ENTRIES < entryCount; segment++) {
    const from = segment * SEGMENT_ENTRIES;
    const entries = new Uint32Array(Math.min(SEGMENT_ENTRIES, entryCount - from)).fill(UNMAPPED);
    for (let i = 0; i < entries.length && from + i < count; i++) entries[i] = first + from + i;
    await records.put(namespace, [segment], new Uint8Array(entries.buffer));
  }
}

/** Sequences that hold pages 0 to the returned number, one after another. */
async function putSequences(records: Records, pageCount: number, pageSizeBytes: number): Promise<number> {
  const resolved = resolveShape(shape, pageSizeBytes);
  const layout = rowLayoutOf(resolved, pageSizeBytes);
  const sequencePages = SEQUENCE_GROUPS * layout.streamCount * resolved.layerCount;
  let page = 0;
  for (let id = 1n; page + sequencePages <= pageCount; id++) {
    const layers: Layer[] = [];
    for (let index = 0; index < resolved.layerCount; index++) {
      const table = new BlockTable(layout.streamCount);
      table.reserveGroups(SEQUENCE_GROUPS);
      for (let group = 0; group < SEQUENCE_GROUPS; group++) {
        for (let stream = 0; stream < layout.streamCount; stream++) table.write(group, stream, page++ as Lpn);
      }
      table.extendTo(SEQUENCE_GROUPS);
      const layer = new Layer(table, 1);
      layer.length = SEQUENCE_GROUPS * resolved.groupTokens;
      layers.push(layer);
      const segments: [number, Uint8Array][] = [];
      table.save(
        (segment, entries) => void segments.push([segment, entries]),
        () => undefined,
      );
      for (const [segment, entries] of segments) {
        await records.put(metaNamespaces.kvLayers, segmentKey(id, index, segment), entries);
      }
    }
    const request = { shape: resolved, id, owner: 1n, label: 'bench', leaseSeconds: 0 };
    await records.put(
      metaNamespaces.kvSequences,
      sequenceKey(id),
      encodeSequence(
        new Sequence(request, { parentId: 0n, layout, holding: new Holdings().enter(request.owner), layers }),
      ),
    );
  }
  return page;
}

function writeHeaders(folder: string, pool: keyof typeof superblockPools, first: number, count: number): void {
  const descriptor = openSync(`${folder}/media/blocks.bin`, 'r+');
  for (let superblock = first; superblock < first + count; superblock++) {
    const fields = { magic: SUPERBLOCK_MAGIC, pool: superblockPools[pool], epoch: 1, openTag: 1, operation: 1 };
    const header = superblockHeader.encode(fields);
    const checked = header.length - 4;
    new DataView(header.buffer).setUint32(checked, crc32c(header.subarray(0, checked)), true);
    writeSync(descriptor, header, 0, header.length, headerOffset(superblock));
  }
  closeSync(descriptor);
}

async function fill(folder: string): Promise<void> {
  const fresh = await openDrive(folder, new ScanListener());
  const { geometry, blocks, kv } = fresh.ftl;
  const [lbaCount, lpnCount, kvPages] = [blocks.lbaCount, kv.lpnCount, kv.pageCount];
  fresh.sequences.close();
  await fresh.ftl.close();
  const stores = openFolder(folder);
  const records = new Records(stores.meta);
  const blockSuperblocks = Math.ceil(lbaCount / (geometry.pagesPerSuperblock * geometry.slotsPerPage));
  await putMap(records, metaNamespaces.blockMap, lbaCount, 0, lbaCount);
  const firstPpn = blockSuperblocks * geometry.pagesPerSuperblock;
  const heldPages = await putSequences(records, kvPages, geometry.pageSizeBytes);
  await putMap(records, metaNamespaces.kvMap, lpnCount, firstPpn, heldPages);
  writeHeaders(folder, 'block', 0, blockSuperblocks);
  writeHeaders(folder, 'kv', blockSuperblocks, Math.ceil(heldPages / geometry.pagesPerSuperblock));
  const state = stores.meta.get(metaNamespaces.drive, ['state']) as StateRecord;
  await records.put(metaNamespaces.drive, ['state'], { ...state, isClean: false, open: [] });
  await records.flush();
  await stores.media.close();
  await stores.meta.close();
  stores.release();
}

async function write(folder: string, byteCount: number): Promise<void> {
  const { ftl } = await openDrive(folder, new ScanListener());
  const bytes = new Uint8Array(WRITE_LBAS * 4096);
  for (let done = 0; done < byteCount; done += bytes.length) {
    systemRandom.fill(bytes.subarray(0, 4096));
    await ftl.blocks.write((done / 4096) % (ftl.blocks.lbaCount - WRITE_LBAS), WRITE_LBAS, bytes, false);
  }
  process.kill(process.pid, 'SIGKILL');
}

async function open(folder: string): Promise<void> {
  const before = anonymousBytes();
  const listener = new ScanListener();
  const beginMs = performance.now();
  const beginCpu = process.cpuUsage();
  await openDrive(folder, listener);
  const milliseconds = performance.now() - beginMs;
  const { user, system } = process.cpuUsage(beginCpu);
  const cpuMilliseconds = (user + system) / 1000;
  const { geometry } = readSuperblock(folder);
  const mediaBytes = geometry.pageCount * geometry.pageSizeBytes;
  const { superblocksScanned } = listener;
  const said = {
    milliseconds,
    cpuMilliseconds,
    anonymousBytes: anonymousBytes(),
    before,
    superblocksScanned,
    mediaBytes,
  };
  process.stdout.write(`${JSON.stringify(said)}\n`);
  process.kill(process.pid, 'SIGKILL');
}

const [, , mode, folder = '', byteCount = '0'] = process.argv;
if (mode === 'fill') await fill(folder);
else if (mode === 'write') await write(folder, Number(byteCount));
else if (mode === 'open') await open(folder);
else throw new Error(`mode ${mode}`);
