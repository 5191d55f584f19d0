import type { Loss } from './finding.ts';

/** From the first to before the end. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

export interface LostSequence {
  readonly sequenceId: bigint;
  /** All of it; no layer is named then. */
  readonly isWhole: boolean;
  readonly layers: readonly { readonly layer: number; readonly tokens: readonly Span[] }[];
}

export interface LostDataSummary {
  readonly lbaCount: number;
  readonly lbas: readonly Span[];
  readonly sequences: readonly LostSequence[];
  /** There may be more, of which nothing is known. */
  readonly isMoreUnknown: boolean;
}

/** Adds up what findings say is gone; whatever several of them name counts once. */
export class LostData {
  readonly #lbas: Span[] = [];
  readonly #sequences = new Map<bigint, { isWhole: boolean; layers: Map<number, Span[]> }>();
  #isMoreUnknown = false;

  add(losses: readonly Loss[]): void {
    for (const loss of losses) {
      if (loss.kind === 'blocks') this.#lbas.push({ start: loss.lba, end: loss.lba + loss.lbaCount });
      else if (loss.kind === 'unknown') this.#isMoreUnknown = true;
      else this.#addSequence(loss);
    }
  }

  #addSequence(loss: Extract<Loss, { sequenceId: bigint }>): void {
    let sequence = this.#sequences.get(loss.sequenceId);
    if (!sequence) this.#sequences.set(loss.sequenceId, (sequence = { isWhole: false, layers: new Map() }));
    if (loss.kind === 'sequence') {
      sequence.isWhole = true;
      return;
    }
    const spans = sequence.layers.get(loss.layer) ?? [];
    sequence.layers.set(loss.layer, spans);
    const last = spans.at(-1);
    const span = { start: loss.firstToken, end: loss.firstToken + loss.tokenCount };
    // K and V of all heads name the same tokens one after another.
    if (last?.start === span.start && last.end === span.end) return;
    spans.push(span);
  }

  summary(): LostDataSummary {
    const lbas = merged(this.#lbas);
    const sequences = [...this.#sequences].map(([sequenceId, { isWhole, layers }]) => ({
      sequenceId,
      isWhole,
      layers: isWhole
        ? []
        : [...layers].sort(([a], [b]) => a - b).map(([layer, spans]) => ({ layer, tokens: merged(spans) })),
    }));
    return {
      lbaCount: lbas.reduce((sum, { start, end }) => sum + end - start, 0),
      lbas,
      sequences: sequences.sort((a, b) => (a.sequenceId < b.sequenceId ? -1 : 1)),
      isMoreUnknown: this.#isMoreUnknown,
    };
  }
}

function merged(spans: readonly Span[]): Span[] {
  const result: { start: number; end: number }[] = [];
  for (const { start, end } of spans.toSorted((a, b) => a.start - b.start)) {
    const last = result.at(-1);
    if (last && start <= last.end) last.end = Math.max(last.end, end);
    else result.push({ start, end });
  }
  return result;
}
