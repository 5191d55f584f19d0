import { bytesInUse, checkPages, type PageFault } from './check-pages.ts';
import { checkHeaders, claimMapped } from './check-maps.ts';
import { checkMetadata } from './check-metadata.ts';
import { checkSequences, countHolders } from './check-sequences.ts';
import { checkStagingLog } from './check-staging.ts';
import { type Finding, type FindingKind, findingKinds } from './finding.ts';
import { UNMAPPED } from '../ftl/segmented-map.ts';
import { DriveImage, type ImageModules, type ImageStores } from './image.ts';
import { KvPageTags } from './kv-page-tags.ts';
import { LostData, type LostDataSummary } from './lost-data.ts';
import { InlineSummer, type PageSummer } from './page-summer.ts';
import { readSequences } from './stored-sequences.ts';

export interface CheckOptions {
  /** What was found while the stores were opened. */
  readonly found?: readonly Finding[];
  /** Told of each finding as it is made. */
  readonly onFinding?: (finding: Finding) => void;
  /** Bytes of cells looked at, and to be looked at in all. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** Default: on the calling thread. It is closed. */
  readonly summer?: PageSummer;
}

export interface CheckResult {
  readonly findingCounts: Readonly<Record<FindingKind, number>>;
  readonly findingCount: number;
  readonly lost: LostDataSummary;
  /** Bytes of cells that were read and summed. */
  readonly checkedBytes: number;
  readonly mappedLbaCount: number;
  /** Logical pages that sequences hold. */
  readonly kvPageCount: number;
  readonly sequenceCount: number;
  /** Whether the drive was shut down in order; undefined: it was never started. */
  readonly isClean: boolean | undefined;
}

/**
 * Checks a whole drive by what its stores hold, as the next start would find it: metadata, staging log, headers, maps,
 * every page in use with its out-of-band entry, every block table. Writes nothing. Whatever is wrong is a finding; it
 * fails only for want of memory.
 */
export async function checkImage(
  stores: ImageStores,
  modules: ImageModules,
  options: CheckOptions = {},
): Promise<CheckResult> {
  const image = await DriveImage.load(stores, modules);
  try {
    return await checkLoaded(image, modules, options);
  } finally {
    image.close();
  }
}

async function checkLoaded(image: DriveImage, modules: ImageModules, options: CheckOptions): Promise<CheckResult> {
  const counts = Object.fromEntries(Object.keys(findingKinds).map((kind) => [kind, 0])) as Record<FindingKind, number>;
  const lost = new LostData();
  const texts: string[] = [];
  const report = (finding: Finding): void => {
    counts[finding.kind]++;
    if (texts.length < TEXTS_MAX) texts.push(finding.text);
    lost.add(finding.lost);
    options.onFinding?.(finding);
  };
  for (const finding of options.found ?? []) report(finding);
  const { stores } = image;
  checkMetadata(image, report);
  for (const _ of readSequences(stores.meta, image.geometry.pageSizeBytes, report));
  checkStagingLog(image, report);
  const faults = new Map<number, Pick<PageFault, 'text'> & { readonly kind: FindingKind }>();
  const holders = countHolders(image, report);
  claimMapped(image, holders, report, (lpn, why) => {
    faults.set(lpn, { kind: 'map', text: `logical page ${lpn} ${why}` });
  });
  await checkHeaders(image, report);
  const checkedBytes = await checkAllPages(image, { ...options, modules, faults, holders }, report);
  // A start stops at the first thing that it can't accept; most of them have been told of by now.
  for (const { message } of image.failures) {
    if (!texts.some((text) => message.includes(text) || text.includes(message))) {
      report({ kind: 'opening', text: `a start refuses the drive: ${message}`, lost: [] });
    }
  }
  const findingCount = Object.values(counts).reduce((sum, count) => sum + count, 0);
  return {
    findingCounts: counts,
    findingCount,
    lost: lost.summary(),
    checkedBytes,
    mappedLbaCount: image.blockMap.entries.reduce((count, slot) => count + (slot === UNMAPPED ? 0 : 1), 0),
    kvPageCount: holders.reduce((count, held) => count + (held > 0 ? 1 : 0), 0),
    sequenceCount: image.sequences.size,
    isClean: image.state?.isClean,
  };
}

/** Enough to know which failures of a start have been explained. */
const TEXTS_MAX = 1000;

interface PageCheckOptions extends CheckOptions {
  readonly modules: ImageModules;
  readonly faults: Map<number, Pick<PageFault, 'text'> & { readonly kind: FindingKind }>;
  readonly holders: Uint32Array;
}

/** Returns the bytes that were summed. */
async function checkAllPages(
  image: DriveImage,
  { modules, faults, holders, onProgress, summer: given }: PageCheckOptions,
  report: (finding: Finding) => void,
): Promise<number> {
  const { geometry, kvMap, stores } = image;
  const tags = new KvPageTags(kvMap.entries.length);
  const totalBytes = bytesInUse(image);
  const faultOfPpn = new Map<number, PageFault>();
  let checkedBytes = 0;
  const summer = given ?? new InlineSummer({ media: stores.media, geometry, ...modules });
  try {
    await checkPages(image, summer, tags, {
      report,
      kvFault: (ppn, fault) => faultOfPpn.set(ppn, fault),
      progress: (bytes) => {
        checkedBytes = bytes;
        onProgress?.(bytes, totalBytes);
      },
    });
  } finally {
    await summer.close();
  }
  if (faultOfPpn.size > 0) {
    for (const [lpn, ppn] of kvMap.entries.entries()) {
      const fault = faultOfPpn.get(ppn);
      if (fault && holders[lpn]! > 0 && !faults.has(lpn)) faults.set(lpn, fault);
    }
  }
  checkSequences(image, { tags, faults, holders }, report);
  return checkedBytes;
}
