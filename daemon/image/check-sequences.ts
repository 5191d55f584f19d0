import { UNMAPPED } from '../ftl/segmented-map.ts';
import { REFERENCES_MAX } from '../ftl/kv-page-store.ts';
import { limits } from '../../spec/limits.ts';
import type { PageFault } from './check-pages.ts';
import type { FindingKind, Loss, Report } from './finding.ts';
import type { DriveImage, ImageSequence } from './image.ts';
import type { KvPageTags, PageTag } from './kv-page-tags.ts';

/** One place in a block table that names a logical page. */
interface Holding {
  readonly sequence: ImageSequence;
  readonly layer: number;
  readonly group: number;
  readonly head: number;
  readonly part: 0 | 1;
}

/** Calls back for every entry of every block table, and for pages that a truncate cut and that are to be read back. */
function forEachHolding(image: DriveImage, callback: (lpn: number, holding: Holding) => void): void {
  for (const sequence of image.sequences.values()) {
    for (const [layer, { table, cut }] of sequence.layers.entries()) {
      for (let group = 0; group < table.groupCount; group++) {
        for (let stream = 0; stream < table.streamCount; stream++) {
          const part = (stream & 1) as 0 | 1;
          callback(table.page(group, stream), { sequence, layer, group, head: stream >> 1, part });
        }
      }
      cut?.pages.forEach((lpn, stream) => {
        callback(lpn, { sequence, layer, group: cut.group, head: stream >> 1, part: (stream & 1) as 0 | 1 });
      });
    }
  }
}

/** Holders of each logical page; reports block tables that name what is no page of the drive, or too often. */
export function countHolders(image: DriveImage, report: Report): Uint32Array {
  const holders = new Uint32Array(image.kvMap.entries.length);
  forEachHolding(image, (lpn, holding) => {
    if (lpn >= holders.length) {
      const text = `${describe(holding)} is logical page ${lpn}; there are ${holders.length}`;
      report({ kind: 'sequence', text, lost: [lostTokens(holding)] });
    } else if (++holders[lpn]! === REFERENCES_MAX + 1) {
      report({ kind: 'sequence', text: `logical page ${lpn} has more than ${REFERENCES_MAX} holders`, lost: [] });
    }
  });
  const pageCount = image.geometry.kvCapacityBytes / image.geometry.pageSizeBytes;
  const liveCount = holders.reduce((count, held) => count + (held > 0 ? 1 : 0), 0);
  if (liveCount > pageCount) {
    report({ kind: 'sequence', text: `${liveCount} logical pages are held; there are ${pageCount}`, lost: [] });
  }
  return holders;
}

/** What is wrong with logical pages, by number. */
export type LpnFaults = ReadonlyMap<number, PageFault | { readonly kind: FindingKind; readonly text: string }>;

/**
 * Follows every block table: each page is there, right, and was programmed for the tokens that the table says, by the
 * sequence or one that it was forked from. Reports what is lost of whom.
 */
export function checkSequences(
  image: DriveImage,
  { tags, faults, holders }: { tags: KvPageTags; faults: LpnFaults; holders: Uint32Array },
  report: Report,
): void {
  const told = new Set<number>();
  const lineage = new Lineage(image);
  forEachHolding(image, (lpn, holding) => {
    const fault = faults.get(lpn);
    if (fault) {
      told.add(lpn);
      report({ kind: fault.kind, text: `${fault.text}; ${describe(holding)}`, lost: [lostTokens(holding)] });
      return;
    }
    const tag = lpn < holders.length ? tags.get(lpn) : undefined;
    const problem = tag && tagProblem(tag, holding, lineage);
    if (problem === undefined) return;
    const text = `${describe(holding)} is logical page ${lpn}, which was programmed for ${problem}`;
    report({ kind: 'tag', text, lost: [lostTokens(holding)] });
  });
  for (const [lpn, fault] of faults) if (!told.has(lpn)) report({ kind: fault.kind, text: fault.text, lost: [] });
  checkGroups(image, tags, report);
  checkLengths(image, report);
  checkLeaks(image, holders, report);
}

/** Whose pages a sequence may hold: its own, and those of the sequences that it was forked from. */
class Lineage {
  readonly #image: DriveImage;

  constructor(image: DriveImage) {
    this.#image = image;
  }

  isAncestor(id: bigint, of: ImageSequence): boolean {
    const seen = new Set<bigint>();
    for (let one: ImageSequence | undefined = of; one; one = this.#image.sequences.get(one.parentId)) {
      if (one.request.id === id || one.parentId === id) return true;
      // A reclaimed parent says nothing of its own any more.
      if (one.parentId !== 0n && !this.#image.sequences.has(one.parentId)) return true;
      if (seen.has(one.request.id)) return true;
      seen.add(one.request.id);
    }
    return false;
  }
}

function tagProblem(
  tag: PageTag,
  { sequence, layer, group, head, part }: Holding,
  lineage: Lineage,
): string | undefined {
  const isPlace = tag.layer === layer && tag.group === group && tag.head === head && tag.part === part;
  if (isPlace && (tag.sequenceId === sequence.request.id || lineage.isAncestor(tag.sequenceId, sequence)))
    return undefined;
  const { sequenceId } = tag;
  return `group ${tag.group} of ${partName(tag.part)}, head ${tag.head}, layer ${tag.layer}, sequence ${sequenceId}`;
}

/** Pages of one group are of one append: all of one sequence and generation, and later groups of no earlier one. */
function checkGroups(image: DriveImage, tags: KvPageTags, report: Report): void {
  for (const sequence of image.sequences.values()) {
    const { id, shape } = sequence.request;
    for (const [layer, { table }] of sequence.layers.entries()) {
      let before: PageTag | undefined;
      for (let group = 0; group < table.groupCount; group++) {
        const found = Array.from({ length: table.streamCount }, (_, stream) => tags.get(table.page(group, stream)));
        const [first] = found;
        const isOne = found.every(
          (tag) => !tag || !first || (tag.generation === first.generation && tag.sequenceId === first.sequenceId),
        );
        const isLater = !before || !first || isNotBefore(first.generation, before.generation);
        before = first ?? before;
        if (isOne && isLater) continue;
        const what = isOne
          ? 'is of an earlier generation than the group before it'
          : 'has pages of several generations';
        const lost: Loss = {
          kind: 'tokens',
          sequenceId: id,
          layer,
          firstToken: group * shape.groupTokens,
          tokenCount: shape.groupTokens,
        };
        report({ kind: 'tag', text: `sequence ${id}, layer ${layer}, group ${group} ${what}`, lost: [lost] });
      }
    }
  }
}

/** Generations are the low 32 bits of operation numbers. */
const isNotBefore = (generation: number, before: number): boolean => (generation - before) >>> 0 < 2 ** 31;

function checkLengths({ sequences }: DriveImage, report: Report): void {
  for (const { request, layers } of sequences.values()) {
    for (const [layer, { length, lostTokenCount }] of layers.entries()) {
      if (length > limits.sequenceTokensMax) {
        const text = `sequence ${request.id}, layer ${layer}: ${length} tokens; at most ${limits.sequenceTokensMax}`;
        report({ kind: 'sequence', text, lost: [] });
      }
      if (lostTokenCount === 0) continue;
      const lost = { sequenceId: request.id, layer, firstToken: length, tokenCount: lostTokenCount };
      const text =
        `sequence ${request.id}, layer ${layer}: tokens ${length} to ${length + lostTokenCount - 1} are in no page ` +
        `and not in the staging log`;
      report({ kind: 'tokens', text, lost: [{ kind: 'tokens', ...lost }] });
    }
  }
}

/** After a clean shutdown every mapped page is held. After a crash the next start frees those that are not. */
function checkLeaks({ state, kvMap, failures }: DriveImage, holders: Uint32Array, report: Report): void {
  if (!state?.isClean || failures.length > 0) return;
  for (const [lpn, ppn] of kvMap.entries.entries()) {
    if (ppn === UNMAPPED || holders[lpn]! > 0) continue;
    report({ kind: 'leak', text: `logical page ${lpn}, physical page ${ppn}: nobody holds it`, lost: [] });
  }
}

const partName = (part: number): string => (part === 0 ? 'K' : 'V');

function describe({ sequence, layer, group, head, part }: Holding): string {
  return `group ${group} of ${partName(part)}, head ${head}, layer ${layer}, sequence ${sequence.request.id}`;
}

function lostTokens({ sequence, layer, group }: Holding): Loss {
  const { id, shape } = sequence.request;
  const firstToken = group * shape.groupTokens;
  return { kind: 'tokens', sequenceId: id, layer, firstToken, tokenCount: shape.groupTokens };
}
