/** Attention in binary64, straight from the definition: what every output is compared with. */

export interface OracleCase {
  readonly queryTokenCount: number;
  readonly queryHeadsPerKvHead: number;
  readonly firstQueryHead: number;
  readonly queryHeadCount: number;
  readonly queryPosition: number;
  readonly tokenStart: number;
  readonly tokenEnd: number;
  readonly causal: boolean;
  readonly slidingWindow: number;
  readonly sinkCount: number;
  readonly scale: number;
  readonly softCap: number;
  readonly headDimK: number;
  readonly headDimV: number;
  /** Element of query row (token, head within the target). */
  q(token: number, head: number, dim: number): number;
  k(token: number, kvHead: number, dim: number): number;
  v(token: number, kvHead: number, dim: number): number;
}

export interface OracleRow {
  readonly output: Float64Array;
  readonly maximum: number;
  readonly logSumExp: number;
  readonly tokenCount: number;
}

/** Rows by query token, then by head. */
export function attendOracle(c: OracleCase): OracleRow[] {
  const rows: OracleRow[] = [];
  for (let token = 0; token < c.queryTokenCount; token++) {
    for (let head = 0; head < c.queryHeadCount; head++) rows.push(oracleRow(c, token, head));
  }
  return rows;
}

function oracleRow(c: OracleCase, queryToken: number, head: number): OracleRow {
  const position = c.queryPosition + queryToken;
  const kvHead = Math.floor((c.firstQueryHead + head) / c.queryHeadsPerKvHead);
  const seen: number[] = [];
  for (let t = c.tokenStart; t < c.tokenEnd; t++) {
    if (c.causal && t > position) continue;
    if (c.slidingWindow > 0 && t <= position - c.slidingWindow && t >= c.sinkCount) continue;
    seen.push(t);
  }
  const scale = c.scale === 0 ? 1 / Math.sqrt(c.headDimK) : c.scale;
  const logits = seen.map((t) => {
    let dot = 0;
    for (let d = 0; d < c.headDimK; d++) dot += c.q(queryToken, head, d) * c.k(t, kvHead, d);
    const logit = scale * dot;
    return c.softCap > 0 ? c.softCap * Math.tanh(logit / c.softCap) : logit;
  });
  const output = new Float64Array(c.headDimV);
  const maximum = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  if (seen.length === 0) return { output, maximum, logSumExp: maximum, tokenCount: 0 };
  let sum = 0;
  for (const [i, t] of seen.entries()) {
    const weight = Math.exp(logits[i]! - maximum);
    sum += weight;
    for (let d = 0; d < c.headDimV; d++) output[d]! += weight * c.v(t, kvHead, d);
  }
  for (let d = 0; d < c.headDimV; d++) output[d]! /= sum;
  return { output, maximum, logSumExp: maximum + Math.log(sum), tokenCount: seen.length };
}
