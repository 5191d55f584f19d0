/**
 * The order in which pages of a superblock are copied, so that groups of a stream that follow one another come to lie
 * side by side: units of a superpage are on channels 0, 1, 2, ... in turn, and group g of a stream belongs on channel
 * (base + g) mod channelCount. Runs of groups are chained so that each begins on the channel after the last. Where none
 * does, the end of another run fills the gap: a gap would break every run that passes it later.
 */

/** A KV page where it lies now. */
export interface StreamPage {
  readonly ppn: number;
  /** Numbers the streams, from 0. */
  readonly stream: number;
  readonly group: number;
  readonly channel: number;
}

/** Where a page is to go. */
export interface PlannedCopy {
  readonly ppn: number;
  readonly channel: number;
}

/** `firstChannel`: of the unit that is written next. */
export function planCopies(pages: readonly StreamPage[], channelCount: number, firstChannel: number): PlannedCopy[] {
  const sorted = [...pages].sort((a, b) => a.stream - b.stream || a.group - b.group);
  const runs = splitIntoRuns(sorted, channelCount);
  const waiting = Array.from({ length: channelCount }, (): PlannedCopy[][] => []);
  // Taken from the end.
  for (const run of runs.reverse()) waiting[run[0]!.channel]!.push(run);
  const planned: PlannedCopy[] = [];
  let channel = firstChannel;
  while (planned.length < pages.length) {
    const run = waiting[channel]!.pop() ?? cutEnd(waiting, channel);
    if (run !== undefined) planned.push(...run);
    channel = (channel + (run?.length ?? 1)) % channelCount;
  }
  return planned;
}

/** The end of a run, from a page on the channel on. Of one that is taken late: those before it are still chained. */
function cutEnd(waiting: readonly PlannedCopy[][][], channel: number): PlannedCopy[] | undefined {
  for (let i = 1; i < waiting.length; i++) {
    const last = waiting[(channel + i) % waiting.length]![0];
    const from = last?.findLastIndex((page) => page.channel === channel) ?? -1;
    if (from > 0) return last!.splice(from);
  }
  return undefined;
}

/** Groups of a stream without a gap, each on the channel where the stream has it. */
function splitIntoRuns(sorted: readonly StreamPage[], channelCount: number): PlannedCopy[][] {
  const runs: PlannedCopy[][] = [];
  let begin = 0;
  while (begin < sorted.length) {
    let end = begin;
    while (end < sorted.length && sorted[end]!.stream === sorted[begin]!.stream) end++;
    const base = baseChannel(sorted.slice(begin, end), channelCount);
    for (let i = begin; i < end; i++) {
      const { ppn, group } = sorted[i]!;
      if (i === begin || group !== sorted[i - 1]!.group + 1) runs.push([]);
      runs.at(-1)!.push({ ppn, channel: (base + group) % channelCount });
    }
    begin = end;
  }
  return runs;
}

/** The channel of group 0, as most of the stream's pages have it: single ones may have been put elsewhere. */
function baseChannel(stream: readonly StreamPage[], channelCount: number): number {
  const votes = new Uint32Array(channelCount);
  for (const { channel, group } of stream) votes[(channel + channelCount - (group % channelCount)) % channelCount]!++;
  return votes.indexOf(Math.max(...votes));
}
