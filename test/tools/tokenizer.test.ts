import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseTokenizer, type Tokenizer } from '../../tools/model/tokenizer.ts';
import { joined, tokenizerBytes, type TinyPiece } from './tiny-model.ts';

const FIRST = 259;
const pieces: TinyPiece[] = [
  { text: ' ', score: -9 },
  { text: 'a', score: -9 },
  { text: 'b', score: -9 },
  { text: 'c', score: -9 },
  { text: 'ab', score: -2 },
  { text: 'bc', score: -1 },
  { text: 'abc', score: -3 },
  { text: ' a', score: -4 },
  { text: 'é', score: -9 },
  { text: 'aa', score: -5 },
];
const id = (text: string): number => FIRST + pieces.findIndex((piece) => piece.text === text);
const byteToken = (byte: number): number => byte + 3;

function tiny(): Tokenizer {
  return parseTokenizer(tokenizerBytes(pieces), FIRST + pieces.length, 'tiny');
}
const encode = (text: string): number[] => tiny().encode(new TextEncoder().encode(text));
const decode = (previous: number, token: number): string =>
  Buffer.from(tiny().decode(previous, token)).toString('latin1');

test('an empty text is BOS alone; others begin with a space', () => {
  assert.deepEqual(encode(''), [1]);
  assert.deepEqual(encode('b'), [1, id(' '), id('b')]);
});

test('the pair with the best score is joined first, the first of equals before the others', () => {
  assert.deepEqual(encode('babc'), [1, id(' '), id('b'), id('abc')]);
  assert.deepEqual(encode('abc'), [1, id(' '), id('abc')]);
  assert.deepEqual(encode('baaa'), [1, id(' '), id('b'), id('aa'), id('a')]);
  assert.deepEqual(encode('aa'), [1, id(' a'), id('a')]);
});

test('characters without a token become byte tokens, each UTF-8 character by itself', () => {
  assert.deepEqual(encode('é'), [1, id(' '), id('é')]);
  assert.deepEqual(encode('€b'), [1, id(' '), byteToken(0xe2), byteToken(0x82), byteToken(0xac), id('b')]);
});

test('bytes that are not UTF-8 become byte tokens, at most four bytes at a time', () => {
  const stray = Uint8Array.of(0x80, 0x81, 0x82, 0x83, 0x84, 0x62);
  const expected = [0x80, 0x81, 0x82, 0x83, 0x84].map(byteToken);
  assert.deepEqual(tiny().encode(stray), [1, id(' '), ...expected, id('b')]);
  assert.deepEqual(tiny().encode(Uint8Array.of(0xc3, 0xa9, 0xa9)), [
    1,
    id(' '),
    byteToken(0xc3),
    byteToken(0xa9),
    byteToken(0xa9),
  ]);
});

test('a text ends at its first zero byte', () => {
  assert.deepEqual(encode('b\0c'), [1, id(' '), id('b')]);
});

test('text of tokens: no space after BOS, byte tokens as bytes, unprintable bytes left out', () => {
  assert.equal(decode(1, id(' a')), 'a');
  assert.equal(decode(id('a'), id(' a')), ' a');
  assert.equal(decode(id('a'), byteToken(0x41)), 'A');
  assert.equal(decode(id('a'), byteToken(0x0a)), '\n');
  for (const byte of [0x00, 0x01, 0x1b, 0x7f, 0x80, 0xff]) assert.equal(decode(id('a'), byteToken(byte)), '');
  assert.equal(decode(id('a'), id('é')), 'Ã©');
});

test('joining a long text takes no more than its square in cheap steps', () => {
  const tokens = encode('abc'.repeat(3000));
  assert.equal(tokens.length, 3002);
});

test("files that are not this model's tokenizer are refused, with the value", () => {
  const good = tokenizerBytes(pieces);
  const count = FIRST + pieces.length;
  const refused = (bytes: Uint8Array, message: RegExp) =>
    assert.throws(() => parseTokenizer(bytes, count, 'tiny'), { name: 'ModelError', message });
  refused(new Uint8Array(0), /tokenizer tiny: ends at token 0; the model has 269 tokens/);
  refused(good.subarray(0, good.length - 1), /ends within token 268/);
  refused(joined(good, Uint8Array.of(7)), /1 bytes follow token 268/);
  const negative = good.slice();
  new DataView(negative.buffer).setInt32(8, -5, true);
  refused(negative, /token 0 is -5 bytes long; 0 to 1024 is allowed/);
});

test('a vocabulary without a space or without byte tokens says so when it needs them', () => {
  const bare = joined(
    new Uint8Array(4),
    ...['u', 's', 'e'].map((text) =>
      joined(new Uint8Array(4), Uint8Array.of(1, 0, 0, 0), new TextEncoder().encode(text)),
    ),
  );
  const tokenizer = parseTokenizer(bare, 3, 'bare');
  assert.deepEqual(tokenizer.encode(new Uint8Array(0)), [1]);
  assert.throws(() => tokenizer.encode(Uint8Array.of(0x75)), { name: 'ModelError', message: /no token for a space/ });
});
