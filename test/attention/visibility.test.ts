import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { visibleEnd, visibleSpans, visibleStart, type VisibilityRule } from '../../daemon/attention/visibility.ts';

const rules = fc.record({
  tokenStart: fc.nat(30),
  tokenCount: fc.nat(40),
  queryPosition: fc.nat(80),
  causal: fc.boolean(),
  slidingWindow: fc.nat(25),
  sinkCount: fc.nat(20),
});

/** The definition, token by token. */
function sees(rule: VisibilityRule, queryToken: number, token: number): boolean {
  const position = rule.queryPosition + queryToken;
  return (
    token >= rule.tokenStart &&
    token < rule.tokenEnd &&
    (!rule.causal || token <= position) &&
    (rule.slidingWindow === 0 || token > position - rule.slidingWindow || token < rule.sinkCount)
  );
}

test('bounds and spans are the definition', () => {
  fc.assert(
    fc.property(rules, fc.integer({ min: 1, max: 12 }), fc.nat(5), ({ tokenCount, ...rest }, count, first) => {
      const rule: VisibilityRule = { ...rest, tokenEnd: rest.tokenStart + tokenCount };
      const spans = visibleSpans(rule, first, count);
      const walked = new Set<number>();
      for (const span of spans) {
        assert.ok(span.start < span.end, 'no span is empty');
        for (let t = span.start; t < span.end; t++) {
          assert.ok(!walked.has(t), 'spans are disjoint');
          walked.add(t);
        }
      }
      assert.deepEqual(
        [...walked],
        [...walked].sort((a, b) => a - b),
        'spans ascend',
      );
      for (let t = 0; t < 80; t++) {
        let anySees = false;
        for (let q = first; q < first + count; q++) {
          // What a kernel does with a token of a frame: frames hold tokens from tokenStart on only.
          const kernelSees =
            walked.has(t) && t < visibleEnd(rule, q) && (t >= visibleStart(rule, q) || t < rule.sinkCount);
          assert.equal(kernelSees, sees(rule, q, t), `query token ${q}, token ${t}`);
          anySees ||= kernelSees;
        }
        assert.equal(walked.has(t), anySees, `token ${t} is walked if and only if somebody sees it`);
      }
    }),
    { seed: 20_261, numRuns: 2000 },
  );
});
