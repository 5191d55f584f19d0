/**
 * What sequences should hold, as plain lists of tokens, and what they may hold after a crash.
 *
 * A layer's tokens are kept by generation: a new one begins with every create, fork and truncate. After a crash the
 * operations up to some operation number survived. Then each layer must hold a prefix of what its last surviving
 * generation ever held, and at least what was durable and not cut away by a surviving truncate.
 */
import type { SequenceShape } from '../../daemon/kv/contract.ts';

interface Generation {
  /** Operation number of the record that began it. */
  readonly operation: number;
  readonly startLength: number;
  tokens: number[];
  /** Durable tokens of it. */
  durableLength: number;
}

export interface ModelSequence {
  readonly id: bigint;
  readonly shape: SequenceShape;
  readonly bornOperation: number;
  diedOperation: number;
  readonly layers: Generation[][];
}

export class SequenceModel {
  readonly sequences: ModelSequence[] = [];

  get live(): ModelSequence[] {
    return this.sequences.filter((sequence) => sequence.diedOperation === Number.POSITIVE_INFINITY);
  }

  static tokens(sequence: ModelSequence, layer: number): number[] {
    return sequence.layers[layer]!.at(-1)!.tokens;
  }

  create(id: bigint, shape: SequenceShape, operation: number, tokens?: readonly (readonly number[])[]): void {
    const layers = Array.from({ length: shape.layerCount }, (_, layer) => {
      const start = [...(tokens?.[layer] ?? [])];
      return [{ operation, startLength: 0, tokens: start, durableLength: 0 }];
    });
    this.sequences.push({ id, shape, bornOperation: operation, diedOperation: Number.POSITIVE_INFINITY, layers });
  }

  fork(parent: ModelSequence, id: bigint, tokenCount: number, operation: number): void {
    const tokens = parent.layers.map((_, layer) => SequenceModel.tokens(parent, layer).slice(0, tokenCount));
    this.create(id, parent.shape, operation, tokens);
  }

  truncate(sequence: ModelSequence, layer: number | undefined, length: number, operation: number): void {
    sequence.layers.forEach((generations, index) => {
      if (layer !== undefined && layer !== index) return;
      const { tokens, durableLength } = generations.at(-1)!;
      generations.push({
        operation,
        startLength: length,
        tokens: tokens.slice(0, length),
        durableLength: Math.min(durableLength, length),
      });
    });
  }

  /** Everything so far is durable. */
  markDurable(): void {
    for (const { layers } of this.live) {
      for (const generations of layers) {
        const last = generations.at(-1)!;
        last.durableLength = last.tokens.length;
      }
    }
  }

  /** Sequences that are there if operations up to `operation` survived. */
  survivors(operation: number): ModelSequence[] {
    return this.sequences.filter((s) => s.bornOperation <= operation && s.diedOperation > operation);
  }

  /** The generation of a layer that survived, and how many of its tokens must be there at least. */
  static surviving(sequence: ModelSequence, layer: number, operation: number): { tokens: number[]; lengthMin: number } {
    const generations = sequence.layers[layer]!.filter((generation) => generation.operation <= operation);
    const { tokens, durableLength } = generations.at(-1)!;
    return { tokens, lengthMin: durableLength };
  }

  copy(): SequenceModel {
    const copied = new SequenceModel();
    for (const sequence of this.sequences) {
      const layers = sequence.layers.map((generations) =>
        generations.map((generation) => ({ ...generation, tokens: [...generation.tokens] })),
      );
      copied.sequences.push({ ...sequence, layers });
    }
    return copied;
  }

  /** A model of what was found, all of it durable. */
  static found(sequences: { id: bigint; shape: SequenceShape; tokens: number[][] }[]): SequenceModel {
    const model = new SequenceModel();
    for (const { id, shape, tokens } of sequences) model.create(id, shape, 0, tokens);
    model.markDurable();
    return model;
  }
}
