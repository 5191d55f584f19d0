import { oobEntry, oobFlags, oobKinds } from '../../spec/media-format/oob.ts';
import { crc32c } from '../base/crc32c.ts';
import { UNMAPPED } from '../ftl/segmented-map.ts';
import { describePage, oobBytesPerPage } from '../nand/geometry.ts';
import { blocks, type FindingKind, type Loss, type Report, unknown } from './finding.ts';
import type { DriveImage } from './image.ts';
import type { KvPageTags } from './kv-page-tags.ts';
import { type PageSummer, SUM_PAGES_MAX } from './page-summer.ts';

const CHECKED_BYTES = oobEntry.sizeBytes - 4;
const at = oobEntry.offsetOf;

/** What is wrong with a slot of a block page, or with a KV page. */
export interface PageFault {
  readonly kind: Extract<FindingKind, 'entry' | 'data' | 'unreadable'>;
  readonly text: string;
}

export interface PageCheckListener {
  readonly report: Report;
  /** A KV page is wrong; its holders know what is lost. */
  readonly kvFault: (ppn: number, fault: PageFault) => void;
  /** Bytes of cells that were looked at so far. */
  readonly progress: (bytes: number) => void;
}

/** Bytes of cells that a check of all pages in use reads. */
export function bytesInUse({ geometry, superblocks }: DriveImage): number {
  let bytes = 0;
  for (let ppn = 0; ppn < geometry.pageCount; ppn++) {
    for (let i = 0; i < geometry.slotsPerPage; i++) {
      if (!superblocks.isValid(ppn * geometry.slotsPerPage + i)) continue;
      bytes += geometry.pageSizeBytes;
      break;
    }
  }
  return bytes;
}

/**
 * Every page in use, in the order in which they lie: its out-of-band entry is whole, of the superblock's present life and
 * of the owner that the map says, and its bytes have the checksum. `tags` takes what the entries of KV pages say.
 */
export async function checkPages(
  image: DriveImage,
  summer: PageSummer,
  tags: KvPageTags,
  listener: PageCheckListener,
): Promise<void> {
  const { geometry, superblocks } = image;
  const check = new PageCheck(image, summer, tags, listener);
  try {
    for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
      if (superblocks.validSlotCount[superblock]! > 0) await check.superblock(superblock);
    }
  } finally {
    await check.settled();
  }
}

class PageCheck {
  readonly #image: DriveImage;
  readonly #summer: PageSummer;
  readonly #tags: KvPageTags;
  readonly #listener: PageCheckListener;
  readonly #running = new Set<Promise<void>>();
  #failure: Error | undefined;
  #bytes = 0;
  /** [slot] -> LBA + 1; made when first needed. */
  #lbaOfSlot: Uint32Array | undefined;

  constructor(image: DriveImage, summer: PageSummer, tags: KvPageTags, listener: PageCheckListener) {
    this.#image = image;
    this.#summer = summer;
    this.#tags = tags;
    this.#listener = listener;
  }

  async superblock(superblock: number): Promise<void> {
    const { geometry, superblocks, stores } = this.#image;
    const { pagesPerSuperblock, slotsPerPage } = geometry;
    const isBlocks = superblocks.pool(superblock) === 'block';
    const firstPpn = superblock * pagesPerSuperblock;
    const oob = new Uint8Array(pagesPerSuperblock * oobBytesPerPage(geometry));
    try {
      await stores.media.readOob(firstPpn, oob);
    } catch (error) {
      // Zeros are no entries: each page in use is told of.
      oob.fill(0);
      const text = `out-of-band area of superblock ${superblock}: ${(error as Error).message}`;
      this.#listener.report({ kind: 'unreadable', text, lost: [] });
    }
    /** The expected sum of each slot (of each page's first slot for KV). */
    const view = new DataView(oob.buffer);
    const isWanted = new Uint8Array(pagesPerSuperblock * slotsPerPage);
    for (let i = 0; i < isWanted.length; i++) {
      const slot = firstPpn * slotsPerPage + i;
      if (!superblocks.isValid(slot)) continue;
      const problem = this.#entryProblem(superblock, slot, oob, view, i * oobEntry.sizeBytes);
      if (problem === undefined) isWanted[i] = 1;
      else this.#fault(slot, isBlocks, { kind: 'entry', text: problem });
    }
    for (let page = 0; page < pagesPerSuperblock; ) {
      const count = this.#runLength(isWanted, page);
      if (count > 0) await this.#sum(firstPpn + page, count, isBlocks, isWanted, view, page);
      page += Math.max(1, count);
    }
  }

  async settled(): Promise<void> {
    await Promise.all(this.#running);
    if (this.#failure) throw this.#failure;
  }

  /** Pages from `page` on that have something to be summed, at most as many as one request takes. */
  #runLength(isWanted: Uint8Array, page: number): number {
    const { slotsPerPage, pagesPerSuperblock } = this.#image.geometry;
    let count = 0;
    while (page + count < pagesPerSuperblock && count < SUM_PAGES_MAX) {
      const first = (page + count) * slotsPerPage;
      if (!isWanted.subarray(first, first + slotsPerPage).includes(1)) break;
      count++;
    }
    return count;
  }

  /** Waits only while all of the summer's room is taken. */
  async #sum(
    firstPpn: number,
    pageCount: number,
    isBlocks: boolean,
    isWanted: Uint8Array,
    oob: DataView,
    page: number,
  ): Promise<void> {
    const { slotsPerPage, pageSizeBytes } = this.#image.geometry;
    while (this.#running.size >= this.#summer.concurrency) await Promise.race(this.#running);
    if (this.#failure) throw this.#failure;
    const run = this.#summer.sum({ firstPpn, pageCount, bySlot: isBlocks }).then(
      ({ sums, unreadable }) => {
        const why = new Map(unreadable.map((one) => [one.ppn, one.why]));
        for (let i = 0; i < pageCount * slotsPerPage; i++) {
          const index = page * slotsPerPage + i;
          if (isWanted[index] === 0) continue;
          const slot = firstPpn * slotsPerPage + i;
          const reason = why.get(firstPpn + Math.floor(i / slotsPerPage));
          if (reason !== undefined) this.#fault(slot, isBlocks, { kind: 'unreadable', text: reason });
          else {
            const expected = oob.getUint32(index * oobEntry.sizeBytes + at.dataCrc32c, true);
            const found = sums[isBlocks ? i : i / slotsPerPage]!;
            if (found !== expected) this.#fault(slot, isBlocks, { kind: 'data', text: sumText(found, expected) });
          }
        }
        this.#bytes += pageCount * pageSizeBytes;
        this.#listener.progress(this.#bytes);
      },
      (error: unknown) => {
        this.#failure ??= error as Error;
      },
    );
    this.#running.add(run);
    void run.then(() => this.#running.delete(run));
  }

  /** Why the entry of a slot in use can't be right. Notes what a right one of a KV page says. */
  #entryProblem(superblock: number, slot: number, oob: Uint8Array, view: DataView, offset: number): string | undefined {
    const { superblocks, blockMap, kvMap, geometry } = this.#image;
    const kind = oob[offset + at.kind]!;
    const sum = view.getUint32(offset + at.crc32c, true);
    if (kind === oobKinds.padding && sum === 0) return 'its out-of-band entry is empty';
    if (sum !== crc32c(oob.subarray(offset, offset + CHECKED_BYTES))) return 'its out-of-band entry fails its checksum';
    const epoch = view.getUint32(offset + at.epoch, true);
    const openTag = view.getUint32(offset + at.openTag, true);
    if (epoch !== superblocks.epoch[superblock] || openTag !== superblocks.openTag[superblock]) {
      return `its out-of-band entry is of opening ${epoch}, not of ${superblocks.epoch[superblock]}`;
    }
    const logical = view.getUint32(offset + at.logical, true);
    const isBlocks = superblocks.pool(superblock) === 'block';
    if (kind !== (isBlocks ? oobKinds.block : oobKinds.kv)) return `its out-of-band entry is of kind ${kind}`;
    const unknownFlags = oob[offset + at.flags]! & ~oobFlags.copy;
    if (unknownFlags !== 0) return `its out-of-band entry has flags ${unknownFlags}`;
    if (isBlocks) {
      return logical < blockMap.entries.length && blockMap.get(logical) === slot
        ? undefined
        : `its out-of-band entry says LBA ${logical}`;
    }
    const isMapped = logical < kvMap.entries.length && kvMap.get(logical) * geometry.slotsPerPage === slot;
    if (!isMapped) return `its out-of-band entry says logical page ${logical}`;
    this.#tags.note(logical, view, offset);
    return undefined;
  }

  #fault(slot: number, isBlocks: boolean, fault: PageFault): void {
    const { geometry } = this.#image;
    const ppn = Math.floor(slot / geometry.slotsPerPage);
    const place = describePage(geometry, ppn);
    if (!isBlocks) {
      this.#listener.kvFault(ppn, { ...fault, text: `${place}: ${fault.text}` });
      return;
    }
    const lba = this.#lbaAt(slot);
    const lost: Loss[] = lba === undefined ? [unknown] : [blocks(lba, 1)];
    const text = `${place}, slot ${slot % geometry.slotsPerPage}, LBA ${lba ?? 'unknown'}: ${fault.text}`;
    this.#listener.report({ kind: fault.kind, text, lost });
  }

  #lbaAt(slot: number): number | undefined {
    const { blockMap, geometry } = this.#image;
    if (this.#lbaOfSlot === undefined) {
      this.#lbaOfSlot = new Uint32Array(geometry.pageCount * geometry.slotsPerPage);
      for (const [lba, found] of blockMap.entries.entries()) {
        if (found !== UNMAPPED && found < this.#lbaOfSlot.length) this.#lbaOfSlot[found] = lba + 1;
      }
    }
    const found = this.#lbaOfSlot[slot]!;
    return found === 0 ? undefined : found - 1;
  }
}

const sumText = (found: number, expected: number): string =>
  `its bytes have the checksum ${hex(found)}, must have ${hex(expected)}`;
const hex = (value: number): string => value.toString(16).padStart(8, '0');
