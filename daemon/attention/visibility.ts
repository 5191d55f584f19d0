/** Which tokens a query sees: pure arithmetic on positions. */

export interface TokenSpan {
  readonly start: number;
  /** One past the last. */
  readonly end: number;
}

export interface VisibilityRule {
  readonly tokenStart: number;
  /** Resolved; at most the layer's length. */
  readonly tokenEnd: number;
  /** Position of query token 0. */
  readonly queryPosition: number;
  readonly causal: boolean;
  /** 0: no window. */
  readonly slidingWindow: number;
  readonly sinkCount: number;
}

/** First token that query token `queryToken` sees besides sinks; may lie beyond its end (then it sees none). */
export function visibleStart(rule: VisibilityRule, queryToken: number): number {
  if (rule.slidingWindow === 0) return rule.tokenStart;
  return Math.max(rule.tokenStart, rule.queryPosition + queryToken - rule.slidingWindow + 1);
}

/** One past the last token that query token `queryToken` sees. */
export function visibleEnd(rule: VisibilityRule, queryToken: number): number {
  return rule.causal ? Math.min(rule.tokenEnd, rule.queryPosition + queryToken + 1) : rule.tokenEnd;
}

/**
 * The tokens that at least one of `queryTokenCount` query tokens from `firstQueryToken` on sees: at most two disjoint
 * spans, ascending, none empty. Every token of a span is seen by one of them: starts and ends never fall from one query
 * token to the next, and each rises by at most one.
 */
export function visibleSpans(rule: VisibilityRule, firstQueryToken: number, queryTokenCount: number): TokenSpan[] {
  const start = visibleStart(rule, firstQueryToken);
  const end = visibleEnd(rule, firstQueryToken + queryTokenCount - 1);
  const sinkEnd = rule.slidingWindow === 0 ? 0 : Math.min(rule.sinkCount, end);
  const spans: TokenSpan[] = [];
  if (sinkEnd >= start) {
    // The sinks reach into the window, or touch it.
    spans.push({ start: rule.tokenStart, end: Math.max(end, sinkEnd) });
  } else {
    spans.push({ start: rule.tokenStart, end: sinkEnd }, { start, end });
  }
  return spans.filter((span) => span.start < span.end);
}
