import assert from 'node:assert/strict';
import { createDiffieHellman, createHash, createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ChapHash, chapHashes, chapHashNames, type DhGroup, dhGroupNames } from '../../spec/authentication.ts';
import { DH_GENERATOR, dhPrime } from '../../spec/dh-groups.ts';
import { type ChapPrimitives, chapResponse, formatChapSecret, parseChapSecret } from '../../spec/dh-hmac-chap.ts';

/** Made by a program of its own in Python, from the text of the standard, with primes typed from RFC 7919. */
interface Vectors {
  readonly primesSha256: Readonly<Record<string, string>>;
  readonly responses: readonly {
    readonly prover: 'host' | 'controller';
    readonly hash: ChapHash;
    readonly group: DhGroup;
    readonly secret: string;
    readonly challenge: string;
    readonly sequence: number;
    readonly transactionId: number;
    readonly hostNqn: string;
    readonly subsystemNqn: string;
    readonly privateKeys?: readonly [string, string];
    readonly sessionKeySha256?: string;
    readonly response: string;
  }[];
}

const path = new URL('../../../test/spec/chap-vectors.json', import.meta.url);
const vectors = JSON.parse(readFileSync(path, 'utf8')) as Vectors;
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const primitives: ChapPrimitives<Uint8Array> = {
  hash: (name, data) => createHash(name).update(data).digest(),
  hmac: (name, key, data) => createHmac(name, key).update(data).digest(),
};

test('primes of RFC 7919', () => {
  for (const group of dhGroupNames) {
    if (group !== 'null') assert.equal(sha256(dhPrime(group)), vectors.primesSha256[group], group);
  }
});

function sessionKeyOf(group: DhGroup, keys: readonly [string, string] | undefined): Uint8Array | undefined {
  if (group === 'null' || keys === undefined) return undefined;
  const [host, controller] = keys.map((key) => {
    const exchange = createDiffieHellman(Buffer.from(dhPrime(group)), DH_GENERATOR);
    exchange.setPrivateKey(Buffer.from(key.length % 2 === 1 ? `0${key}` : key, 'hex'));
    exchange.generateKeys();
    return exchange;
  });
  const secret = host!.computeSecret(controller!.getPublicKey());
  return Buffer.concat([Buffer.alloc(dhPrime(group).length - secret.length), secret]);
}

for (const vector of vectors.responses) {
  const { prover, hash, group, response } = vector;
  test(`response of a ${prover}: ${hash}, ${group}`, () => {
    const sessionKey = sessionKeyOf(group, vector.privateKeys);
    if (sessionKey !== undefined) assert.equal(sha256(sessionKey), vector.sessionKeySha256);
    const challenge = Buffer.from(vector.challenge, 'hex');
    const exchange = { ...vector, challenge, sessionKey };
    assert.equal(hex(chapResponse(prover, parseChapSecret(vector.secret), exchange, primitives)), response);
  });
}

test('a secret as text and back', () => {
  const secrets = fc.oneof(
    fc.record({ transform: fc.constant(undefined), key: fc.constantFrom(32, 48, 64).chain(bytesOf) }),
    fc.constantFrom(...chapHashNames).chain((transform) => {
      return fc.record({ transform: fc.constant(transform), key: bytesOf(chapHashes[transform].sizeBytes) });
    }),
  );
  fc.assert(
    fc.property(secrets, (secret) => {
      const text = formatChapSecret(secret);
      assert.match(text, /^DHHC-1:0[0-3]:[A-Za-z0-9+/]+=*:$/);
      assert.deepEqual(parseChapSecret(`${text}\n`), { ...secret, key: Uint8Array.from(secret.key) });
      assert.equal(text.split(':')[2]?.length, Math.ceil((secret.key.length + 4) / 3) * 4);
    }),
  );
});

const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

test('a character of a secret that is changed is noticed', () => {
  const text = formatChapSecret({ transform: 'sha256', key: new Uint8Array(32).fill(7) });
  const character = fc.integer({ min: 10, max: text.length - 3 });
  const other = fc.constantFrom(...'ABCXYZabcxyz0189+/');
  fc.assert(
    fc.property(character, other, (at, letter) => {
      fc.pre(text[at] !== letter);
      assert.throws(() => parseChapSecret(text.slice(0, at) + letter + text.slice(at + 1)), RangeError);
    }),
  );
});

const wrongSecrets: readonly (readonly [string, RegExp])[] = [
  ['', /not of the form/],
  ['DHHC-1:04:AAAA:', /not of the form/],
  ['DHHC-1:00:AAAA', /not of the form/],
  ['DHHC-1:00:AAAA:', /0 bytes, allowed: 32, 48, 64/],
  [`DHHC-1:00:${'A'.repeat(48)}:`, /checksum is wrong/],
  [
    formatChapSecret({ transform: 'sha512', key: new Uint8Array(64) }).replace(':03:', ':01:'),
    /64 bytes .* goes with 32/,
  ],
];
for (const [text, message] of wrongSecrets) {
  test(`a secret that is none: ${text.slice(0, 20)}`, () => {
    assert.throws(() => parseChapSecret(text), message);
    // Whatever is wrong, no part of it is said.
    const body = text.split(':')[2] ?? '';
    if (body.length > 8) {
      assert.throws(
        () => parseChapSecret(text),
        (error: Error) => !error.message.includes(body.slice(0, 8)),
      );
    }
  });
}
