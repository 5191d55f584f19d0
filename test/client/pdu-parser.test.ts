import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DriveProtocolError } from '../../client/index.ts';
import { PduParser } from '../../client/pdu-parser.ts';
import { c2hData, capsuleResp, commonHeader, pduTypes, r2t } from '../../spec/index.ts';

interface Seen {
  readonly type: string;
  readonly data: Uint8Array;
}

/** Pushes a stream cut at the given places and returns what came out. */
function parse(stream: Uint8Array, cuts: readonly number[]): Seen[] {
  const seen: Seen[] = [];
  let ended = 0;
  let withData = 0;
  const parser = new PduParser({
    header: (type, _bytes, _at, dataBytes) => {
      const data = new Uint8Array(dataBytes);
      seen.push({ type, data });
      if (type === 'c2hData') withData++;
      return data;
    },
    dataEnd: () => ended++,
  });
  const places = [0, ...[...cuts].sort((a, b) => a - b), stream.length];
  for (let i = 1; i < places.length; i++) parser.push(stream.subarray(places[i - 1], places[i]));
  assert.equal(ended, withData, 'every C2HData ends once');
  return seen;
}

const response = fc.constant(() => {
  const { type, hlen } = pduTypes.capsuleResp;
  return { type: 'capsuleResp', data: new Uint8Array(), bytes: capsuleResp.encode({ type, hlen, plen: hlen }) };
});
const request = fc.constant(() => {
  const { type, hlen } = pduTypes.r2t;
  return { type: 'r2t', data: new Uint8Array(), bytes: r2t.encode({ type, hlen, plen: hlen, r2tl: 1 }) };
});
const data = fc
  .tuple(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 0, max: 40 }))
  .map(([payload, padding]) => () => {
    const { type, hlen } = pduTypes.c2hData;
    const pdo = payload.length === 0 ? 0 : hlen + padding;
    const bytes = new Uint8Array(payload.length === 0 ? hlen : pdo + payload.length);
    c2hData.encode({ type, hlen, pdo, plen: bytes.length, datal: payload.length }, bytes);
    bytes.set(payload, bytes.length - payload.length);
    return { type: 'c2hData', data: payload, bytes };
  });

test('PDUs come out whole however the stream is cut', () => {
  const stream = fc.array(fc.oneof(response, request, data), { minLength: 1, maxLength: 12 });
  const cuts = fc.array(fc.nat(4000), { maxLength: 30 });
  fc.assert(
    fc.property(stream, cuts, (makers, places) => {
      const pdus = makers.map((make) => make());
      const bytes = Buffer.concat(pdus.map((pdu) => pdu.bytes));
      const inside = places.filter((place) => place <= bytes.length);
      const seen = parse(bytes, inside);
      assert.deepEqual(
        seen.map(({ type, data: payload }) => ({ type, data: [...payload] })),
        pdus.map(({ type, data: payload }) => ({ type, data: [...payload] })),
      );
    }),
    { seed: 20_261, numRuns: 300 },
  );
});

test('any header is taken or refused as a protocol error, never anything else', () => {
  const header = fc.record({
    type: fc.oneof(fc.nat(10), fc.nat(255)),
    flags: fc.oneof(fc.constantFrom(0, 4, 12), fc.nat(255)),
    hlen: fc.oneof(fc.constantFrom(24, 24, 128), fc.nat(255)),
    pdo: fc.oneof(fc.nat(40), fc.nat(255)),
    plen: fc.oneof(fc.constant(24), fc.nat(300), fc.nat(0xffff_ffff)),
  });
  let taken = 0;
  fc.assert(
    fc.property(header, fc.uint8Array({ minLength: 400, maxLength: 400 }), (fields, rest) => {
      const bytes = Buffer.concat([commonHeader.encode(fields), rest]);
      const parser = new PduParser({
        header: (_type, _bytes, _at, dataBytes) => {
          taken++;
          assert.ok(dataBytes <= 0x100_0000);
          return new Uint8Array(dataBytes);
        },
        dataEnd: () => undefined,
      });
      try {
        parser.push(bytes);
      } catch (error) {
        assert.ok(error instanceof DriveProtocolError, String(error));
      }
    }),
    { seed: 20_262, numRuns: 3000 },
  );
  assert.ok(taken > 20, `${taken} headers were good enough to be taken`);
});
