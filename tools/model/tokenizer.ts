/**
 * Byte-pair tokenizer of karpathy/llama2.c: int32 max_token_length, then per token float32 score, int32 length, bytes.
 *
 * Encoding starts from BOS and, unless the text is empty, a space; takes each UTF-8 character as a token if there is
 * one and as byte tokens if not; and joins, as long as there is one, the neighbours whose joined token has the highest
 * score (the first of equals). Texts are bytes, not strings: nothing says that a prompt is valid UTF-8.
 */
import { readWholeFile } from './file.ts';
import { ModelError } from './model-error.ts';

/** Begins, and ends, every sequence. */
export const BOS_TOKEN = 1;
/** Tokens of the single bytes 00h to FFh follow <unk>, <s>, </s>. */
const FIRST_BYTE_TOKEN = 3;
const BYTE_TOKEN_COUNT = 256;
const TOKEN_BYTES_MAX = 1024;
const TOKENIZER_BYTES_MAX = 1 << 28;
/** Scores at or below it never join. */
const SCORE_FLOOR = -1e10;
const CHARACTER_BYTES_MAX = 4;
/** As sscanf reads it: up to two digits, and nothing is asked of what follows. */
const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{1,2})/;

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Tokens of a prompt, BOS first. */
  encode(text: Uint8Array): number[];
  /** Bytes that the reference program prints for `token` after `previous`; may be empty. */
  decode(previous: number, token: number): Uint8Array;
}

export function readTokenizer(path: string, vocabularySize: number): Tokenizer {
  return parseTokenizer(readWholeFile(path, 'tokenizer', TOKENIZER_BYTES_MAX), vocabularySize, path);
}

/** ModelError unless `bytes` holds exactly `vocabularySize` tokens. */
export function parseTokenizer(bytes: Uint8Array, vocabularySize: number, path: string): Tokenizer {
  const fail = (text: string): never => {
    throw new ModelError(`tokenizer ${path}: ${text}`);
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const pieces: string[] = [];
  const scores = new Float32Array(vocabularySize);
  let next = 4;
  for (let token = 0; token < vocabularySize; token++) {
    if (next + 8 > bytes.length) fail(`ends at token ${token}; the model has ${vocabularySize} tokens`);
    scores[token] = view.getFloat32(next, true);
    const length = view.getInt32(next + 4, true);
    if (length < 0 || length > TOKEN_BYTES_MAX) {
      fail(`token ${token} is ${length} bytes long; 0 to ${TOKEN_BYTES_MAX} is allowed`);
    }
    next += 8;
    if (next + length > bytes.length) fail(`ends within token ${token}; the model has ${vocabularySize} tokens`);
    pieces.push(Buffer.from(bytes.buffer, bytes.byteOffset + next, length).toString('latin1'));
    next += length;
  }
  if (next !== bytes.length) {
    fail(
      `${bytes.length - next} bytes follow token ${vocabularySize - 1}, the model's last: not this model's tokenizer`,
    );
  }
  return new BytePairTokenizer(pieces, scores, path);
}

/** A tokenizer of pieces that are ASCII. `name` is for error messages. */
export function createTokenizer(pieces: readonly string[], scores: Float32Array, name: string): Tokenizer {
  return new BytePairTokenizer(pieces, scores, name);
}

class BytePairTokenizer implements Tokenizer {
  /** Bytes as latin1 strings. */
  readonly #pieces: readonly string[];
  readonly #scores: Float32Array;
  readonly #tokenOf = new Map<string, number>();
  readonly #path: string;

  constructor(pieces: readonly string[], scores: Float32Array, path: string) {
    this.#pieces = pieces;
    this.#scores = scores;
    this.#path = path;
    for (const [token, piece] of pieces.entries()) {
      if (!this.#tokenOf.has(piece)) this.#tokenOf.set(piece, token);
    }
  }

  get vocabularySize(): number {
    return this.#pieces.length;
  }

  encode(text: Uint8Array): number[] {
    const end = text.indexOf(0);
    const prompt = end < 0 ? text : text.subarray(0, end);
    const tokens = [BOS_TOKEN];
    if (prompt.length > 0) {
      const space = this.#tokenOf.get(' ');
      if (space === undefined) throw new ModelError(`tokenizer ${this.#path}: has no token for a space`);
      tokens.push(space);
      for (const character of characters(prompt)) this.#pushCharacter(tokens, character);
    }
    this.#join(tokens);
    return tokens;
  }

  #pushCharacter(tokens: number[], character: Uint8Array): void {
    const token = this.#tokenOf.get(Buffer.from(character).toString('latin1'));
    if (token !== undefined) {
      tokens.push(token);
      return;
    }
    if (this.#pieces.length < FIRST_BYTE_TOKEN + BYTE_TOKEN_COUNT) {
      throw new ModelError(`tokenizer ${this.#path}: no byte tokens, so it cannot encode every text`);
    }
    for (const byte of character) tokens.push(byte + FIRST_BYTE_TOKEN);
  }

  #join(tokens: number[]): void {
    // joined[i] is what tokens i and i + 1 would become, or -1. A join changes its two neighbours only.
    const joined = tokens.map((_, i) => this.#joinOf(tokens, i));
    for (;;) {
      let bestScore = SCORE_FLOOR;
      let best = -1;
      for (let i = 0; i < joined.length; i++) {
        const token = joined[i]!;
        if (token < 0 || !(this.#scores[token]! > bestScore)) continue;
        bestScore = this.#scores[token]!;
        best = i;
      }
      if (best < 0) return;
      tokens.splice(best, 2, joined[best]!);
      joined.splice(best, 1);
      joined[best] = this.#joinOf(tokens, best);
      if (best > 0) joined[best - 1] = this.#joinOf(tokens, best - 1);
    }
  }

  #joinOf(tokens: readonly number[], i: number): number {
    const right = tokens[i + 1];
    if (right === undefined) return -1;
    return this.#tokenOf.get(this.#pieces[tokens[i]!]! + this.#pieces[right]!) ?? -1;
  }

  decode(previous: number, token: number): Uint8Array {
    let piece = this.#pieces[token] ?? '';
    if (previous === BOS_TOKEN && piece.startsWith(' ')) piece = piece.slice(1);
    const byte = BYTE_TOKEN.exec(piece);
    if (byte) piece = String.fromCharCode(Number.parseInt(byte[1]!, 16));
    const end = piece.indexOf('\0');
    if (end >= 0) piece = piece.slice(0, end);
    if (piece.length === 1 && !isPrinted(piece.charCodeAt(0))) return new Uint8Array(0);
    return Buffer.from(piece, 'latin1');
  }
}

/** isprint or isspace in the C locale: other single bytes may be control codes and are left out. */
const isPrinted = (byte: number): boolean => (byte >= 0x20 && byte < 0x7f) || (byte >= 0x09 && byte <= 0x0d);

const isContinuation = (byte: number | undefined): boolean => byte !== undefined && (byte & 0xc0) === 0x80;

/** A byte with the continuation bytes after it, four bytes at most; stray continuation bytes likewise. */
function* characters(text: Uint8Array): Generator<Uint8Array> {
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    if (isContinuation(text[i + 1]) && i + 1 - start < CHARACTER_BYTES_MAX) continue;
    yield text.subarray(start, i + 1);
    start = i + 1;
  }
}
