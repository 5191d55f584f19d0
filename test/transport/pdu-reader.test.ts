import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { DIGEST_BYTES, fatalErrors, type PduType, pduFlags, pduTypes } from '../../spec/pdu.ts';
import { crc32c } from '../../daemon/base/crc32c.ts';
import { PduError } from '../../daemon/transport/pdu-error.ts';
import { type Digests, NO_DIGESTS, PduReader, type PduReceiver } from '../../daemon/transport/pdu-reader.ts';

const CAPSULE_MAX = 1000;
const H2C_MAX = 2000;

interface Seen {
  readonly type: PduType;
  readonly header: string;
  readonly data: string;
}

/** Collects PDUs; H2CData goes to a target of the receiver's, as in a transfer. */
class Collector implements PduReceiver {
  readonly seen: Seen[] = [];
  damagedCount = 0;

  dataBytesMax(type: PduType): number {
    return { capsuleCmd: CAPSULE_MAX, h2cData: H2C_MAX, h2cTermReq: 128 }[type as string] ?? 0;
  }

  beginPdu(type: PduType, _bytes: DataView, _at: number, dataBytes: number): Uint8Array | undefined {
    return type === 'h2cData' ? new Uint8Array(dataBytes) : undefined;
  }

  endPdu(type: PduType, bytes: DataView, at: number, data: Uint8Array, isIntact: boolean): void {
    if (!isIntact) this.damagedCount++;
    const header = Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset + at, pduTypes[type].hlen).toString('hex');
    this.seen.push({ type, header, data: Buffer.from(data).toString('hex') });
  }
}

type Encoded = { bytes: Buffer; seen: Seen };

function encode(type: PduType, dataBytes: number, padBytes: number, seed: number, digests = NO_DIGESTS): Encoded {
  const { type: code, hlen } = pduTypes[type];
  const hasDigests = type !== 'icReq' && type !== 'h2cTermReq';
  const headerDigest = Buffer.alloc(hasDigests && digests.header ? DIGEST_BYTES : 0);
  const dataDigest = Buffer.alloc(hasDigests && digests.data && dataBytes > 0 ? DIGEST_BYTES : 0);
  const header = Buffer.alloc(hlen, seed);
  const withData = dataBytes > 0;
  const pad = type === 'h2cTermReq' || !withData ? 0 : padBytes;
  header[0] = code;
  header[1] = type === 'h2cData' ? seed & pduFlags.last : 0;
  header[1] |= (headerDigest.length > 0 ? pduFlags.hdgst : 0) | (dataDigest.length > 0 ? pduFlags.ddgst : 0);
  header[2] = hlen;
  header[3] = withData && type !== 'h2cTermReq' ? hlen + headerDigest.length + pad : 0;
  header.writeUInt32LE(hlen + headerDigest.length + pad + dataBytes + dataDigest.length, 4);
  const data = Buffer.from(Array.from({ length: dataBytes }, (_, i) => (i * 7 + seed) & 0xff));
  const seen = { type, header: header.toString('hex'), data: data.toString('hex') };
  if (headerDigest.length > 0) headerDigest.writeUInt32LE(crc32c(header));
  if (dataDigest.length > 0) dataDigest.writeUInt32LE(crc32c(data));
  return { bytes: Buffer.concat([header, headerDigest, Buffer.alloc(pad, 0xee), data, dataDigest]), seen };
}

const hostPdu = (digests: Digests) =>
  fc
    .record({
      type: fc.constantFrom<PduType>('icReq', 'capsuleCmd', 'capsuleCmd', 'h2cData', 'h2cTermReq'),
      size: fc.nat(600),
      pad: fc.constantFrom(0, 4, 32),
      seed: fc.nat(255),
    })
    .map(({ type, size, pad, seed }) => {
      const dataBytes = { icReq: 0, h2cTermReq: size % 129 }[type as string] ?? (type === 'h2cData' ? size + 1 : size);
      return encode(type, dataBytes, pad, seed, digests);
    });

const cuts = fc.array(fc.integer({ min: 1, max: 700 }));
const everyDigests: readonly Digests[] = [false, true].flatMap((header) => [
  { header, data: false },
  { header, data: true },
]);

function pushInPieces(reader: PduReader, stream: Buffer, sizes: readonly number[]): void {
  let at = 0;
  for (let i = 0; at < stream.length; i++) {
    const size = sizes.length === 0 ? stream.length : (sizes[i % sizes.length] as number);
    reader.push(stream.subarray(at, at + size));
    at += size;
  }
}

describe('a stream of PDUs', () => {
  for (const digests of everyDigests) {
    test(`comes out the same however it is cut into chunks, ${JSON.stringify(digests)}`, () => {
      fc.assert(
        fc.property(fc.array(hostPdu(digests), { maxLength: 12 }), cuts, (pdus, sizes) => {
          const collector = new Collector();
          const reader = new PduReader(collector, crc32c);
          reader.useDigests(digests);
          pushInPieces(reader, Buffer.concat(pdus.map(({ bytes }) => bytes)), sizes);
          assert.deepEqual(
            collector.seen,
            pdus.map(({ seen }) => seen),
          );
          assert.equal(collector.damagedCount, 0);
          assert.equal(reader.midPdu, false);
          assert.equal(reader.pduCount, pdus.length);
        }),
        { numRuns: 200, seed: 7 },
      );
    });
  }

  test('with both digests: a flipped bit is never taken for what was sent', () => {
    const digests = { header: true, data: true };
    const one = hostPdu(digests).filter(({ seen: { type } }) => type !== 'icReq' && type !== 'h2cTermReq');
    fc.assert(
      fc.property(one, fc.nat(), fc.nat(7), cuts, ({ bytes, seen }, place, bit, sizes) => {
        const at = place % bytes.length;
        const padStart = pduTypes[seen.type].hlen + DIGEST_BYTES;
        // Padding is in no digest.
        if (at >= padStart && at < (bytes[3] as number)) return;
        const flipped = Buffer.from(bytes);
        flipped[at]! ^= 1 << bit;
        const collector = new Collector();
        const reader = new PduReader(collector, crc32c);
        reader.useDigests(digests);
        const error = caught(() => pushInPieces(reader, flipped, sizes));
        if (error !== undefined) assert.ok(error instanceof PduError);
        else assert.equal(collector.damagedCount, 1);
      }),
      { numRuns: 500, seed: 8 },
    );
  });

  test('byte by byte', () => {
    const pdus = [encode('icReq', 0, 0, 1), encode('capsuleCmd', 5, 4, 2), encode('h2cData', 9, 0, 3)];
    const collector = new Collector();
    const reader = new PduReader(collector, crc32c);
    for (const byte of Buffer.concat(pdus.map(({ bytes }) => bytes))) reader.push(Uint8Array.of(byte));
    assert.deepEqual(
      collector.seen,
      pdus.map(({ seen }) => seen),
    );
  });

  test('stands inside a PDU until its last byte', () => {
    const { bytes } = encode('capsuleCmd', 10, 0, 1);
    for (const cut of [1, 7, 8, 71, 72, 81]) {
      const reader = new PduReader(new Collector(), crc32c);
      reader.push(bytes.subarray(0, cut));
      assert.equal(reader.midPdu, true, `after ${cut} bytes`);
      reader.push(bytes.subarray(cut));
      assert.equal(reader.midPdu, false);
    }
  });
});

/** Each row spoils one thing in a good PDU and says what the host is to be told. */
const spoiled: readonly (readonly [
  string,
  PduType,
  number,
  (pdu: Buffer) => void,
  keyof typeof fatalErrors,
  number,
])[] = [
  ['unknown type', 'capsuleCmd', 0, (pdu) => pdu.writeUInt8(0x0b, 0), 'invalidHeaderField', 0],
  ["a controller's type", 'capsuleCmd', 0, (pdu) => pdu.writeUInt8(0x05, 0), 'invalidHeaderField', 0],
  ['header digest flag', 'capsuleCmd', 0, (pdu) => pdu.writeUInt8(1, 1), 'invalidHeaderField', 1],
  ['data digest flag', 'h2cData', 8, (pdu) => pdu.writeUInt8(6, 1), 'invalidHeaderField', 1],
  ['reserved flag', 'icReq', 0, (pdu) => pdu.writeUInt8(0x80, 1), 'invalidHeaderField', 1],
  ['short HLEN', 'capsuleCmd', 0, (pdu) => pdu.writeUInt8(71, 2), 'invalidHeaderField', 2],
  ['long HLEN', 'h2cData', 8, (pdu) => pdu.writeUInt8(28, 2), 'invalidHeaderField', 2],
  ['PLEN 0', 'capsuleCmd', 0, (pdu) => pdu.writeUInt32LE(0, 4), 'invalidHeaderField', 4],
  ['PLEN below HLEN', 'capsuleCmd', 0, (pdu) => pdu.writeUInt32LE(71, 4), 'invalidHeaderField', 4],
  ['data in ICReq', 'icReq', 4, () => undefined, 'invalidHeaderField', 4],
  ['capsule above the limit', 'capsuleCmd', CAPSULE_MAX + 1, () => undefined, 'invalidHeaderField', 4],
  ['PLEN FFFFFFFFh', 'capsuleCmd', 4, (pdu) => pdu.writeUInt32LE(0xffff_ffff, 4), 'invalidHeaderField', 4],
  ['H2CData above MAXH2CDATA', 'h2cData', H2C_MAX + 1, () => undefined, 'limitExceeded', 4],
  ['H2CTermReq with too much', 'h2cTermReq', 129, () => undefined, 'invalidHeaderField', 4],
  ['PDO within the header', 'capsuleCmd', 8, (pdu) => pdu.writeUInt8(68, 3), 'invalidHeaderField', 3],
  ['PDO not aligned', 'capsuleCmd', 8, (pdu) => pdu.writeUInt8(73, 3), 'invalidHeaderField', 3],
  ['PDO beyond PLEN', 'capsuleCmd', 8, (pdu) => pdu.writeUInt8(84, 3), 'invalidHeaderField', 3],
  ['PDO without data', 'capsuleCmd', 0, (pdu) => pdu.writeUInt8(76, 3), 'invalidHeaderField', 3],
];

describe('a spoiled PDU', () => {
  for (const [what, type, dataBytes, spoil, kind, info] of spoiled) {
    test(what, () => {
      const { bytes } = encode(type, dataBytes, 0, 0);
      spoil(bytes);
      for (const chunkBytes of [bytes.length, 3]) {
        const reader = new PduReader(new Collector(), crc32c);
        const error = caught(() => {
          for (let at = 0; at < bytes.length; at += chunkBytes) reader.push(bytes.subarray(at, at + chunkBytes));
        });
        assert.ok(error instanceof PduError, `${what} in chunks of ${chunkBytes}`);
        assert.equal(error.fes, fatalErrors[kind]);
        assert.equal(error.info, info);
        assert.deepEqual(Buffer.from(error.header), bytes.subarray(0, error.header.length));
      }
    });
  }
});

function caught(work: () => void): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  return undefined;
}
