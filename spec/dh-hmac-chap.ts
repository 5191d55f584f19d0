/**
 * DH-HMAC-CHAP (NVMe Base Specification 2.0, "DH-HMAC-CHAP Protocol"): secrets as text, and what host and controller prove
 * to each other that they have one. Hashing is the caller's: this folder imports nothing.
 */
import { type ChapHash, chapHashes, chapHashOf } from './authentication.ts';

/** Hash functions by name. `K` is how the caller keeps a secret. */
export interface ChapPrimitives<K> {
  hash(name: ChapHash, data: Uint8Array): Uint8Array;
  hmac(name: ChapHash, key: K | Uint8Array, data: Uint8Array): Uint8Array;
}

/** A secret: `transform` is the hash that binds it to the NQN of its owner before use; undefined: used as it is. */
export interface ChapSecret<K> {
  readonly transform: ChapHash | undefined;
  readonly key: K;
}

/** What a response proves to know, and in which exchange. */
export interface ChapExchange {
  readonly hash: ChapHash;
  /** Of the other side: C1 or C2. */
  readonly challenge: Uint8Array;
  /** Shared by Diffie-Hellman, as long as the group's values; undefined with the NULL group. */
  readonly sessionKey: Uint8Array | undefined;
  /** Sequence number that came with the challenge: S1 or S2. */
  readonly sequence: number;
  readonly transactionId: number;
  readonly hostNqn: string;
  /** As Connect named it. */
  readonly subsystemNqn: string;
}

/** The response of a host to the challenge of a controller, or the other way round. */
export function chapResponse<K>(
  prover: 'host' | 'controller',
  secret: ChapSecret<K>,
  exchange: ChapExchange,
  primitives: ChapPrimitives<K>,
): Uint8Array {
  const { hash, sessionKey, hostNqn, subsystemNqn } = exchange;
  const [own, other] = prover === 'host' ? [hostNqn, subsystemNqn] : [subsystemNqn, hostNqn];
  const key = transformed(secret, own, primitives);
  const challenge =
    sessionKey === undefined
      ? exchange.challenge
      : primitives.hmac(hash, primitives.hash(hash, sessionKey), exchange.challenge);
  const numbers = new Uint8Array(7);
  const view = new DataView(numbers.buffer);
  view.setUint32(0, exchange.sequence, true);
  view.setUint16(4, exchange.transactionId, true);
  // The seventh byte is SC_C: no secure channel follows.
  const label = prover === 'host' ? 'HostHost' : 'Controller';
  const text = encoder.encode(`${label}${own}\0${other}`);
  return primitives.hmac(hash, key, joined(challenge, numbers, text));
}

const encoder = new TextEncoder();

const transformed = <K>({ transform, key }: ChapSecret<K>, nqn: string, primitives: ChapPrimitives<K>) =>
  transform === undefined ? key : primitives.hmac(transform, key, encoder.encode(`${nqn}NVMe-over-Fabrics`));

function joined(...parts: readonly Uint8Array[]): Uint8Array {
  const target = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    target.set(part, at);
    at += part.length;
  }
  return target;
}

// --- secrets as text ---

const SECRET_BYTES = [32, 48, 64];
const CRC_BYTES = 4;

/**
 * Parses `DHHC-1:HH:BASE64:`, as nvme-cli makes it: HH 00 (no transformation) or the id of a hash, and the base64 of 32, 48
 * or 64 bytes with their CRC-32 behind them. RangeError says what is wrong, without a byte of the secret.
 */
export function parseChapSecret(text: string): ChapSecret<Uint8Array> {
  const match = /^DHHC-1:(0[0-3]):([A-Za-z0-9+/]+={0,2}):$/.exec(text.trim());
  if (match === null) throw new RangeError('not of the form DHHC-1:HH:BASE64: with HH 00 to 03');
  const bytes = fromBase64(match[2] as string);
  const sizeBytes = bytes.length - CRC_BYTES;
  if (!SECRET_BYTES.includes(sizeBytes)) {
    throw new RangeError(`${Math.max(0, sizeBytes)} bytes, allowed: ${SECRET_BYTES.join(', ')}`);
  }
  const id = Number(match[1]);
  const transform = chapHashOf(id);
  const key = bytes.slice(0, sizeBytes);
  const sum = new DataView(bytes.buffer).getUint32(sizeBytes, true);
  if (crc32(key) !== sum) throw new RangeError('its checksum is wrong: a character is missing or changed');
  if (transform !== undefined && chapHashes[transform].sizeBytes !== sizeBytes) {
    const { name, sizeBytes: wanted } = chapHashes[transform];
    throw new RangeError(`${sizeBytes} bytes to be transformed with ${name}, which goes with ${wanted}`);
  }
  return { transform, key };
}

/** The same secret as text. */
export function formatChapSecret({ transform, key }: ChapSecret<Uint8Array>): string {
  if (!SECRET_BYTES.includes(key.length))
    throw new RangeError(`${key.length} bytes, allowed: ${SECRET_BYTES.join(', ')}`);
  const sum = new Uint8Array(CRC_BYTES);
  new DataView(sum.buffer).setUint32(0, crc32(key), true);
  const id = transform === undefined ? 0 : chapHashes[transform].id;
  return `DHHC-1:${String(id).padStart(2, '0')}:${toBase64(joined(key, sum))}:`;
}

const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 3) {
    const [a = 0, b = 0, c = 0] = bytes.subarray(at, at + 3);
    const word = (a << 16) | (b << 8) | c;
    for (const shift of [18, 12, 6, 0]) text += BASE64[(word >>> shift) & 63];
  }
  const padding = (3 - (bytes.length % 3)) % 3;
  return text.slice(0, text.length - padding) + '='.repeat(padding);
}

/** Of characters that are all of the alphabet; empty if they are not groups of four. */
function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  if (text.length % 4 !== 0) return new Uint8Array(0);
  const bytes = new Uint8Array((text.length / 4) * 3);
  for (let at = 0; at < text.length; at += 4) {
    let word = 0;
    for (let i = 0; i < 4; i++) word = (word << 6) | Math.max(0, BASE64.indexOf(text[at + i] as string));
    bytes.set([word >>> 16, (word >>> 8) & 0xff, word & 0xff], (at / 4) * 3);
  }
  return bytes.slice(0, bytes.length - (text.length - text.replace(/=+$/, '').length));
}

/** CRC-32 of ISO 3309 (reflected EDB88320h), bit by bit: secrets are short. */
function crc32(bytes: Uint8Array): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb8_8320 : 0);
  }
  return ~crc >>> 0;
}
