import { limits } from '../../spec/limits.ts';
import { rowSizeBytes } from '../../spec/quantised-row.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { KvPages, PagePins, Ppn } from '../ftl/contract.ts';
import { kvOwnerText } from '../ftl/page-owner.ts';
import { partialSizeBytes } from '../kernels/contract.ts';
import type { KvStore, LayerView, SequenceShape } from '../kv/contract.ts';
import type { AttendCounts, AttendOptions, AttendTarget } from './contract.ts';
import { type TokenSpan, type VisibilityRule, visibleSpans } from './visibility.ts';

/**
 * K and V bytes that one job walks, about: enough to hide what it costs to begin one (1.7 us until memory delivers at its
 * full rate), few enough to share a sequence among workers. Tokens are a power of two, rounded up to whole groups: that is how
 * long sequences often are, and a short job for what is left would pay for its begin.
 */
const CHUNK_BYTES = 1024 * 1024;
/** A job never walks more groups: the smallest frame cache must hold one job's pages. */
const CHUNK_GROUPS_MAX = 64;
/** A group that holds both the last sink and the first token of a window comes twice. */
const JOB_GROUPS_TWICE = 1;
/** Most pages that a job takes. */
export const JOB_PAGES_MAX = 2 * (CHUNK_GROUPS_MAX + JOB_GROUPS_TWICE);
/** Query rows of one unit, about: its tiles of query tokens walk the same pages again. */
const TILE_ROWS = 64;
/** Partials of one unit, about; a unit of one query token may take more. */
const TILE_PARTIAL_BYTES = 4 * 1024 * 1024;

/** How rows and groups of a sequence lie, worked out once. */
export interface GroupLayout {
  readonly shape: SequenceShape;
  readonly rowBytesK: number;
  readonly rowBytesV: number;
  readonly groupTokens: number;
  /**
   * Jobs end at multiples of this token position. It follows from the shape alone, so that an output does not depend
   * on the number of workers, on what else runs, or on how large a cache is.
   */
  readonly chunkTokens: number;
  /** Most pages that one of its jobs takes. */
  readonly jobPages: number;
}

/** A run of consecutive groups whose pages are pinned; `base` is its first group's index among all pinned groups. */
interface GroupRun {
  readonly first: number;
  readonly count: number;
  readonly base: number;
}

/** One target, validated, its pages pinned, its view held. */
export interface TargetPlan {
  readonly target: AttendTarget;
  readonly view: LayerView;
  readonly layout: GroupLayout;
  readonly rule: VisibilityRule;
  readonly firstKvHead: number;
  readonly kvHeadCount: number;
  readonly groupRuns: readonly GroupRun[];
  readonly groupCount: number;
  /** [kvHead - firstKvHead][pinned group][K, V]. */
  readonly pages: Uint32Array;
  readonly logicalPages: Uint32Array;
  readonly counts: AttendCounts;
  /** K and V bytes that all units together walk. */
  readonly walkBytes: number;
  /** Of query tokens: each is one unit of each KV head. */
  readonly tiles: readonly Tile[];
  readonly pins: PagePins;
  /** `pages`, ascending. */
  sortedPages(): Uint32Array;
}

/** Query tokens that go through the pages together. */
export interface Tile {
  readonly firstToken: number;
  readonly tokenCount: number;
  /** What they see. */
  readonly spans: readonly TokenSpan[];
  /** Jobs of one unit. */
  readonly jobCount: number;
  /** Frames that its jobs need, at most. */
  readonly frameCount: number;
}

export interface PlanModules {
  readonly kv: KvStore;
  readonly pages: KvPages;
}

/** Plans all targets or none. Synchronous, so that lengths and pages are those of one moment. */
export function planTargets(
  options: AttendOptions,
  targets: readonly AttendTarget[],
  modules: PlanModules,
): TargetPlan[] {
  const plans: TargetPlan[] = [];
  try {
    for (const [index, target] of targets.entries()) plans.push(planTarget(options, target, index, modules));
  } catch (error) {
    for (const plan of plans) releasePlan(plan);
    throw error;
  }
  return plans;
}

/** Lets go of pages and tail rows. Nothing may walk them any more. */
export function releasePlan(plan: TargetPlan): void {
  plan.pins.release();
  plan.view.release();
}

function planTarget(
  options: AttendOptions,
  target: AttendTarget,
  index: number,
  { kv, pages }: PlanModules,
): TargetPlan {
  const view = viewOf(kv, target, index);
  try {
    checkTarget(target, view, index);
    const rule: VisibilityRule = {
      tokenStart: target.tokenStart,
      tokenEnd: target.tokenEnd ?? view.length,
      queryPosition: target.queryPosition,
      causal: options.causal,
      slidingWindow: options.slidingWindow,
      sinkCount: options.sinkCount,
    };
    const layout = layoutOf(view.shape);
    const spans = visibleSpans(rule, 0, target.queryTokenCount);
    const firstKvHead = Math.floor(target.firstQueryHead / target.queryHeadsPerKvHead);
    const lastQueryHead = target.firstQueryHead + target.queryHeadCount - 1;
    const kvHeadCount = Math.floor(lastQueryHead / target.queryHeadsPerKvHead) - firstKvHead + 1;
    const { groupRuns, groupCount } = groupsOf(spans, view.flashTokenCount, layout.groupTokens);
    const tiles = tilesOf(target, rule, spans, view.flashTokenCount, layout);
    const logicalPages = new Uint32Array(kvHeadCount * groupCount * 2);
    let at = 0;
    for (let head = firstKvHead; head < firstKvHead + kvHeadCount; head++) {
      for (const { first, count } of groupRuns) {
        view.copyPages(head, first, first + count, logicalPages, at);
        at += 2 * count;
      }
    }
    const counts = countTokens(spans, view.flashTokenCount, logicalPages.length);
    const physicalPages = new Uint32Array(logicalPages.length);
    const pins = pages.pinAll(logicalPages, physicalPages);
    let sortedPages: Uint32Array | undefined;
    return {
      target,
      view,
      layout,
      rule,
      firstKvHead,
      kvHeadCount,
      groupRuns,
      groupCount,
      pages: physicalPages,
      logicalPages,
      counts,
      walkBytes:
        (counts.flashTokenCount + counts.bufferedTokenCount) *
        (layout.rowBytesK + layout.rowBytesV) *
        kvHeadCount *
        tiles.length,
      tiles,
      pins,
      sortedPages: () => (sortedPages ??= physicalPages.toSorted()),
    };
  } catch (error) {
    view.release();
    throw error;
  }
}

function viewOf(kv: KvStore, target: AttendTarget, index: number): LayerView {
  try {
    return kv.view(target.sequenceId, target.layer);
  } catch (error) {
    if (!(error instanceof DriveError)) throw error;
    throw new DriveError(error.code, `target ${index}: ${error.message}`, { result: index, cause: error });
  }
}

function checkTarget(target: AttendTarget, view: LayerView, index: number): void {
  const refuse = (code: 'headRange' | 'tokenRange', detail: string): never => {
    throw new DriveError(code, `target ${index}: ${detail}`, { result: index });
  };
  const perKvHead = target.queryHeadsPerKvHead;
  if (perKvHead < 1 || perKvHead > limits.queryHeadsPerKvHeadMax) {
    refuse('headRange', `${perKvHead} query heads per KV head; allowed: 1 to ${limits.queryHeadsPerKvHeadMax}`);
  }
  const headCount = perKvHead * view.shape.kvHeadCount;
  if (target.queryHeadCount < 1 || target.firstQueryHead + target.queryHeadCount > headCount) {
    refuse('headRange', `query heads ${target.firstQueryHead} +${target.queryHeadCount}; there are ${headCount}`);
  }
  if (target.queryTokenCount < 1 || target.queryTokenCount > limits.queryTokenCountMax) {
    refuse('tokenRange', `${target.queryTokenCount} query tokens; allowed: 1 to ${limits.queryTokenCountMax}`);
  }
  if (target.queryPosition + target.queryTokenCount > limits.sequenceTokensMax) {
    refuse('tokenRange', `query position ${target.queryPosition}; allowed: below ${limits.sequenceTokensMax}`);
  }
  const tokenEnd = target.tokenEnd ?? view.length;
  if (tokenEnd > view.length || target.tokenStart > tokenEnd) {
    refuse('tokenRange', `tokens ${target.tokenStart} to ${tokenEnd}; the layer has ${view.length}`);
  }
}

/** Works out how a sequence's rows lie. */
export function layoutOf(shape: SequenceShape): GroupLayout {
  const rowBytesK = rowSizeBytes(shape.elementTypeK, shape.headDimK);
  const rowBytesV = rowSizeBytes(shape.elementTypeV, shape.headDimV);
  const wantedTokens = 2 ** Math.round(Math.log2(CHUNK_BYTES / (rowBytesK + rowBytesV)));
  const chunkGroups = Math.min(CHUNK_GROUPS_MAX, Math.ceil(wantedTokens / shape.groupTokens));
  return {
    shape,
    rowBytesK,
    rowBytesV,
    groupTokens: shape.groupTokens,
    chunkTokens: chunkGroups * shape.groupTokens,
    jobPages: 2 * (chunkGroups + JOB_GROUPS_TWICE),
  };
}

/** Chunks that a span touches. */
const chunksIn = (span: TokenSpan, chunkTokens: number): number =>
  Math.floor((span.end - 1) / chunkTokens) - Math.floor(span.start / chunkTokens) + 1;

/** `allSpans`: what all query tokens see. */
function tilesOf(
  target: AttendTarget,
  rule: VisibilityRule,
  allSpans: readonly TokenSpan[],
  flashTokenCount: number,
  layout: GroupLayout,
): Tile[] {
  const { queryTokenCount } = target;
  const tileTokens = tileTokensOf(target, layout, countChunks(allSpans, layout.chunkTokens));
  const tiles: Tile[] = [];
  for (let firstToken = 0; firstToken < queryTokenCount; firstToken += tileTokens) {
    const tokenCount = Math.min(tileTokens, queryTokenCount - firstToken);
    const spans = tokenCount === queryTokenCount ? allSpans : visibleSpans(rule, firstToken, tokenCount);
    const jobCount = countChunks(spans, layout.chunkTokens);
    tiles.push({ firstToken, tokenCount, spans, jobCount, frameCount: countFrames(spans, flashTokenCount, layout) });
  }
  return tiles;
}

function tileTokensOf(target: AttendTarget, { shape }: GroupLayout, chunkCount: number): number {
  const headCount = Math.min(target.queryHeadsPerKvHead, target.queryHeadCount);
  const byPartials = Math.floor(TILE_PARTIAL_BYTES / Math.max(1, chunkCount * partialSizeBytes(shape.headDimV)));
  const rowCount = Math.min(TILE_ROWS, byPartials);
  return Math.min(target.queryTokenCount, Math.max(1, Math.floor(rowCount / headCount)));
}

function countChunks(spans: readonly TokenSpan[], chunkTokens: number): number {
  let count = 0;
  let previous = -1;
  for (const span of spans) {
    const isShared = Math.floor(span.start / chunkTokens) === previous;
    count += chunksIn(span, chunkTokens) - (isShared ? 1 : 0);
    previous = Math.floor((span.end - 1) / chunkTokens);
  }
  return count;
}

/** Frames, if each group and each chunk of the tail has one of its own. */
function countFrames(
  spans: readonly TokenSpan[],
  flashTokenCount: number,
  { groupTokens, chunkTokens }: GroupLayout,
): number {
  let count = 0;
  for (const span of spans) {
    const flashEnd = Math.min(span.end, flashTokenCount);
    if (span.start < flashEnd) count += Math.ceil(flashEnd / groupTokens) - Math.floor(span.start / groupTokens);
    const tailStart = Math.max(span.start, flashTokenCount);
    if (tailStart < span.end) count += chunksIn({ start: tailStart, end: span.end }, chunkTokens);
  }
  return count;
}

/** Groups in flash that the spans touch, as at most two disjoint runs. */
function groupsOf(spans: readonly TokenSpan[], flashTokenCount: number, groupTokens: number) {
  const groupRuns: GroupRun[] = [];
  let groupCount = 0;
  for (const span of spans) {
    const end = Math.ceil(Math.min(span.end, flashTokenCount) / groupTokens);
    const previous = groupRuns.at(-1);
    // A group that holds both sinks and the start of the window belongs to the first run.
    const first = Math.max(Math.floor(span.start / groupTokens), previous ? previous.first + previous.count : 0);
    if (first >= end) continue;
    groupRuns.push({ first, count: end - first, base: groupCount });
    groupCount += end - first;
  }
  return { groupRuns, groupCount };
}

/** Index of a pinned group. */
export function groupIndex(runs: readonly GroupRun[], group: number): number {
  for (const run of runs) if (group < run.first + run.count) return run.base + group - run.first;
  assert(false, `group ${group} is among the pinned ones`);
}

/** Whose a pinned page is, for people. */
export function ownerOf(plan: TargetPlan, page: Ppn): string {
  const { target, groupRuns, groupCount, firstKvHead } = plan;
  const index = plan.pages.indexOf(page);
  const pinned = Math.floor(index / 2) % groupCount;
  const run = groupRuns.find(({ base, count }) => pinned < base + count);
  assert(index >= 0 && run !== undefined, `page ${page} is one of the plan`);
  return kvOwnerText({
    sequenceId: target.sequenceId,
    layer: target.layer,
    head: firstKvHead + Math.floor(index / (2 * groupCount)),
    part: index % 2,
    group: run.first + pinned - run.base,
  });
}

function countTokens(spans: readonly TokenSpan[], flashTokenCount: number, pageCount: number): AttendCounts {
  let flash = 0;
  let buffered = 0;
  for (const { start, end } of spans) {
    const inFlash = Math.max(0, Math.min(end, flashTokenCount) - start);
    flash += inFlash;
    buffered += end - start - inFlash;
  }
  return { flashTokenCount: flash, bufferedTokenCount: buffered, pageCount };
}
