import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { planCopies, type StreamPage } from '../../daemon/ftl/stream-order.ts';

/** Streams with gaps, in any order; stream s has group 0 on channel bases[s], and some pages lie elsewhere. */
const pagesOf = (channelCount: number) =>
  fc
    .array(
      fc.record({
        base: fc.nat(channelCount - 1),
        groups: fc.uniqueArray(fc.nat(40), { minLength: 1, maxLength: 30 }),
      }),
      { minLength: 1, maxLength: 12 },
    )
    .chain((streams) => {
      const pages = streams.flatMap(({ base, groups }, stream) =>
        groups.map((group) => ({ stream, group, channel: (base + group) % channelCount })),
      );
      return fc
        .shuffledSubarray(pages, { minLength: pages.length, maxLength: pages.length })
        .map((shuffled) => ({ bases: streams.map(({ base }) => base), pages: shuffled }));
    });

test('every page is copied once, to its own channel', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }).chain((channelCount) =>
        fc.record({
          channelCount: fc.constant(channelCount),
          firstChannel: fc.nat(channelCount - 1),
          input: pagesOf(channelCount),
        }),
      ),
      ({ channelCount, firstChannel, input }) => {
        const pages: StreamPage[] = input.pages.map((page, ppn) => ({ ...page, ppn }));
        const copies = planCopies(pages, channelCount, firstChannel);
        assert.deepEqual(
          copies.map(({ ppn }) => ppn).sort((a, b) => a - b),
          pages.map(({ ppn }) => ppn),
        );
        const byPpn = new Map(pages.map((page) => [page.ppn, page]));
        for (const { ppn, channel } of copies) {
          const page = byPpn.get(ppn)!;
          assert.equal(channel, (input.bases[page.stream]! + page.group) % channelCount);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('runs are chained without a gap, and few are cut for that', () => {
  for (const [channelCount, streamCount, groupCount] of [
    [4, 16, 64],
    [8, 16, 64],
    [8, 64, 61],
  ] as const) {
    const pages: StreamPage[] = [];
    for (let group = 0; group < groupCount; group++) {
      for (let stream = 0; stream < streamCount; stream++) {
        pages.push({ ppn: pages.length, stream, group, channel: (stream + group) % channelCount });
      }
    }
    const copies = planCopies(pages, channelCount, 3);
    assert.equal(copies[0]!.channel, 3);
    let gaps = 0;
    let pieces = 1;
    for (let i = 1; i < copies.length; i++) {
      if (copies[i]!.channel !== (copies[i - 1]!.channel + 1) % channelCount) gaps++;
      const [before, page] = [pages[copies[i - 1]!.ppn]!, pages[copies[i]!.ppn]!];
      if (page.stream !== before.stream || page.group !== before.group + 1) pieces++;
    }
    assert.equal(gaps, 0);
    assert.ok(pieces <= streamCount + channelCount, `${pieces} pieces of ${streamCount} streams`);
  }
});

test('pages that lie on a wrong channel go where most of their stream says', () => {
  const pages: StreamPage[] = Array.from({ length: 8 }, (_, group) => ({
    ppn: 100 + group,
    stream: 0,
    group,
    channel: group === 2 || group === 5 ? 0 : (group + 1) % 4,
  }));
  for (const { ppn, channel } of planCopies(pages, 4, 0)) assert.equal(channel, (ppn - 100 + 1) % 4);
});
