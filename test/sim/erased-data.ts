/** What Format NVM with user data erase has said is gone: bytes that no file of the drive may hold any more. */
import assert from 'node:assert/strict';
import type { Geometry } from '../../daemon/nand/geometry.ts';
import type { Superblocks } from '../../daemon/ftl/superblocks.ts';
import { holdsVersion } from './block-model.ts';

const LBA_BYTES = 4096;
/** Enough to tell a KV page from all others, and a block's bytes from anything else. */
const FINGERPRINT_BYTES = 64;

/** Files of a drive, open or not. */
interface Files {
  readonly geometry: Geometry;
  readonly media: { readonly cells: Uint8Array };
  readonly staging: { readonly segments: ReadonlyMap<number, { readonly bytes: Uint8Array }> };
}

/** What a namespace held when its format was submitted. */
export interface Holdings {
  /** Versions of blocks up to it. */
  readonly versionMax: number;
  readonly kvPages: readonly string[];
}

export class ErasedData {
  readonly #lbaCount: number;
  #versionMax = 0;
  readonly #kvPages = new Set<string>();

  constructor(lbaCount: number) {
    this.#lbaCount = lbaCount;
  }

  /** Every page of the KV pool, stale ones too. */
  kvPagesOf({ media, geometry }: Files, superblocks: Superblocks): string[] {
    const pages: string[] = [];
    for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
      if (superblocks.pool(superblock) !== 'kv') continue;
      const first = superblock * geometry.pagesPerSuperblock;
      for (let ppn = first; ppn < first + geometry.pagesPerSuperblock; ppn++) {
        const begin = beginOf(media, geometry, ppn);
        // What was not programmed over may be a block, and the same block may be elsewhere.
        if (holdsVersion(begin, this.#lbaCount) === undefined) pages.push(begin.toString('latin1'));
      }
    }
    return pages;
  }

  add({ versionMax, kvPages }: Holdings): void {
    this.#versionMax = Math.max(this.#versionMax, versionMax);
    for (const page of kvPages) if (page !== ZERO_FINGERPRINT) this.#kvPages.add(page);
  }

  /** Fails if something of it is still there, or there again. */
  check({ geometry, media, staging }: Files): void {
    if (this.#versionMax > 0) {
      for (let at = 0; at < media.cells.length; at += LBA_BYTES) {
        this.#checkBlock(media.cells.subarray(at, at + FINGERPRINT_BYTES), `the media at byte ${at}`);
      }
      for (const [number, { bytes }] of staging.segments) {
        for (let at = 0; at + FINGERPRINT_BYTES <= bytes.length; at += 4) {
          this.#checkBlock(bytes.subarray(at, at + FINGERPRINT_BYTES), `segment ${number} of the log at byte ${at}`);
        }
      }
    }
    if (this.#kvPages.size === 0) return;
    for (let ppn = 0; ppn < geometry.pageCount; ppn++) {
      const isErased = this.#kvPages.has(beginOf(media, geometry, ppn).toString('latin1'));
      assert.ok(!isErased, `an erased KV page is at page ${ppn}`);
    }
  }

  #checkBlock(bytes: Uint8Array, where: string): void {
    const version = holdsVersion(bytes, this.#lbaCount);
    assert.ok(
      version === undefined || version > this.#versionMax,
      `${where} holds version ${version}, which was erased`,
    );
  }
}

const beginOf = ({ cells }: Files['media'], { pageSizeBytes }: Geometry, ppn: number): Buffer =>
  Buffer.from(cells.buffer, cells.byteOffset + ppn * pageSizeBytes, FINGERPRINT_BYTES);

const ZERO_FINGERPRINT = '\0'.repeat(FINGERPRINT_BYTES);
