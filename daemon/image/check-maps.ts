import { superblockHeader } from '../../spec/media-format/oob.ts';
import { readSuperblockHeader } from '../ftl/recovery.ts';
import { UNMAPPED } from '../ftl/segmented-map.ts';
import type { Pool } from '../ftl/superblocks.ts';
import { blocks, type Report } from './finding.ts';
import type { DriveImage } from './image.ts';

/**
 * Marks in `image.superblocks` what the maps name, and reports what they can't name. `holders` says which logical pages are
 * held; `nowhere` is told of a held one that has no possible place.
 */
export function claimMapped(
  image: DriveImage,
  holders: Uint32Array,
  report: Report,
  nowhere: (lpn: number, why: string) => void,
): void {
  const { blockMap, kvMap, geometry } = image;
  for (const [lba, slot] of blockMap.entries.entries()) {
    if (slot === UNMAPPED) continue;
    const problem = claim(image, slot, 1, 'block');
    if (problem)
      report({ kind: 'map', text: `LBA ${lba} is mapped to slot ${slot}, which ${problem}`, lost: [blocks(lba, 1)] });
  }
  for (const [lpn, ppn] of kvMap.entries.entries()) {
    if (holders[lpn] === 0) continue;
    if (ppn === UNMAPPED) {
      nowhere(lpn, 'has no place in the map');
      continue;
    }
    const problem = claim(image, ppn * geometry.slotsPerPage, geometry.slotsPerPage, 'kv');
    if (problem) nowhere(lpn, `is mapped to physical page ${ppn}, which ${problem}`);
  }
}

/** Why it can't be; undefined: it is marked valid. */
function claim({ superblocks, geometry }: DriveImage, slot: number, weight: number, pool: Pool): string | undefined {
  const superblock = superblocks.superblockOfSlot(slot);
  if (superblock >= geometry.superblockCount) return 'is outside of the media';
  if (superblocks.isValid(slot)) return 'has two owners';
  if (superblocks.state(superblock) === 'bad') return 'is in a superblock that was given up';
  if (superblocks.state(superblock) === 'free') superblocks.restore(superblock, 'full', pool);
  const owner = superblocks.pool(superblock);
  if (owner !== pool) return `is in a superblock of the ${owner === 'kv' ? 'KV' : 'block'} namespace`;
  superblocks.markValid(slot, weight);
  return undefined;
}

/**
 * Headers of superblocks. One that a power cut tore is of an opening that does not count, and stays until the superblock is
 * opened again; so a damaged one is a finding only where pages in use lie, or the last transaction says that it was open.
 */
export async function checkHeaders(image: DriveImage, report: Report): Promise<void> {
  const { geometry, superblocks, state, stores } = image;
  let headers: Uint8Array;
  try {
    headers = await stores.media.readSuperblockHeaders();
  } catch (error) {
    report({ kind: 'unreadable', text: `headers of superblocks: ${(error as Error).message}`, lost: [] });
    return;
  }
  const open = new Set((state?.open ?? []).map(({ superblock }) => superblock));
  for (let superblock = 0; superblock < geometry.superblockCount; superblock++) {
    const bytes = headers.subarray(
      superblock * superblockHeader.sizeBytes,
      (superblock + 1) * superblockHeader.sizeBytes,
    );
    const validSlotCount = superblocks.validSlotCount[superblock]!;
    const mustBeThere = validSlotCount > 0 || open.has(superblock);
    const isEmpty = bytes.every((byte) => byte === 0);
    const header = isEmpty ? undefined : readSuperblockHeader(bytes);
    const wrong = (what: string): void => {
      const use = validSlotCount > 0 ? `; ${validSlotCount} of its slots are in use` : '';
      report({ kind: 'superblockHeader', text: `header of superblock ${superblock}: ${what}${use}`, lost: [] });
    };
    if (header === undefined) {
      if (isEmpty && mustBeThere) wrong('is empty');
      else if (mustBeThere) wrong('is damaged');
    } else if (state?.isClean && header.operation > state.operation) {
      wrong(`is of operation ${header.operation}; the drive was shut down at ${state.operation}`);
    }
  }
}
