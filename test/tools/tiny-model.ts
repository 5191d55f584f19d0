/** Makes small llama2.c checkpoint and tokenizer files, with random weights, for tests. */

export interface TinyHeader {
  readonly dim: number;
  readonly hiddenDim: number;
  readonly layerCount: number;
  readonly headCount: number;
  readonly kvHeadCount: number;
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly ownClassifier?: boolean;
}

export const tinyHeader: TinyHeader = {
  dim: 16,
  hiddenDim: 24,
  layerCount: 2,
  headCount: 4,
  kvHeadCount: 2,
  vocabularySize: 300,
  contextLength: 32,
};

/** Numbers from -1 to 1. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 0x8000_0000 - 1;
  };
}

export function headerBytes(header: TinyHeader): Uint8Array<ArrayBuffer> {
  const { ownClassifier = false } = header;
  const fields = [
    header.dim,
    header.hiddenDim,
    header.layerCount,
    header.headCount,
    header.kvHeadCount,
    ownClassifier ? -header.vocabularySize : header.vocabularySize,
    header.contextLength,
  ];
  return new Uint8Array(Int32Array.from(fields).buffer);
}

/** A whole checkpoint. Norm weights are near one, rotary tables are NaN because nothing may read them. */
export function checkpointBytes(header: TinyHeader, seed: number): Uint8Array<ArrayBuffer> {
  const { dim, hiddenDim, layerCount, headCount, kvHeadCount, vocabularySize, contextLength } = header;
  const random = createRandom(seed);
  const kvDim = (dim / headCount) * kvHeadCount;
  const weights: number[] = [];
  const matrix = (count: number) => {
    for (let i = 0; i < count; i++) weights.push(random() * 0.8);
  };
  const norm = (count: number) => {
    for (let i = 0; i < count; i++) weights.push(1 + random() * 0.1);
  };
  matrix(vocabularySize * dim);
  norm(layerCount * dim);
  matrix(layerCount * dim * dim);
  matrix(layerCount * dim * kvDim);
  matrix(layerCount * dim * kvDim);
  matrix(layerCount * dim * dim);
  norm(layerCount * dim);
  matrix(3 * layerCount * dim * hiddenDim);
  norm(dim);
  for (let i = 0; i < (contextLength * dim) / headCount; i++) weights.push(Number.NaN);
  if (header.ownClassifier === true) matrix(vocabularySize * dim);
  return joined(headerBytes(header), new Uint8Array(Float32Array.from(weights).buffer));
}

export interface TinyPiece {
  readonly text: string;
  readonly score: number;
}

/** Specials and byte tokens, then `pieces`: token 259 on. */
export function tokenizerBytes(pieces: readonly TinyPiece[]): Uint8Array<ArrayBuffer> {
  const bytePieces = Array.from(
    { length: 256 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  );
  const all = ['<unk>', '\n<s>\n', '\n</s>\n', ...bytePieces].map((text): TinyPiece => ({ text, score: 0 }));
  const parts: Uint8Array[] = [new Uint8Array(Int32Array.of(16).buffer)];
  for (const { text, score } of [...all, ...pieces]) {
    const encoded = new TextEncoder().encode(text);
    parts.push(
      new Uint8Array(Float32Array.of(score).buffer),
      new Uint8Array(Int32Array.of(encoded.length).buffer),
      encoded,
    );
  }
  return joined(...parts);
}

export function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
