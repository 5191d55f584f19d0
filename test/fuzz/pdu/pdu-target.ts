/**
 * The reader of PDUs: streams of a few PDUs, most of them wrong somewhere, cut into chunks anywhere.
 *
 * Whatever comes: it delivers exactly the PDUs before the first that is wrong, byte for byte, says of that one a fault that
 * it has, and asks for no more memory than its receiver allows.
 */
import assert from 'node:assert/strict';
import { crc32c } from '../../../daemon/base/crc32c.ts';
import { PduError } from '../../../daemon/transport/pdu-error.ts';
import { PduReader, type PduReceiver } from '../../../daemon/transport/pdu-reader.ts';
import {
  capsuleCmd,
  commonHeader,
  DIGEST_BYTES,
  h2cData,
  h2cTermReq,
  icReq,
  pduFlags,
  type PduType,
  pduTypes,
} from '../../../spec/pdu.ts';
import type { Fields, Struct } from '../../../spec/struct.ts';
import type { Prng } from '../../sim/prng.ts';
import { joined, mutateBytes, mutateLength, mutateStruct } from '../mutate.ts';
import type { Session, SessionContext, Target } from '../target.ts';
import { type ModelDigests, type ModelPdu, readStream } from './pdu-model.ts';

const bounds: Partial<Record<PduType, number>> = { capsuleCmd: 1000, h2cData: 2000, h2cTermReq: 128 };
const dataBytesMax = (type: PduType): number => bounds[type] ?? 0;

const structs = { icReq, h2cTermReq, capsuleCmd, h2cData } as unknown as Readonly<Record<string, Struct<Fields>>>;
const hostTypes = ['icReq', 'h2cTermReq', 'capsuleCmd', 'capsuleCmd', 'capsuleCmd', 'h2cData', 'h2cData'] as const;

export interface PduInput {
  readonly stream: Uint8Array;
  readonly headerDigests: boolean;
  readonly dataDigests: boolean;
  /** Sizes of the chunks, over and over. */
  readonly chunks: readonly number[];
  /** H2CData goes to where the receiver says. */
  readonly hasTargets: boolean;
}

/** A PDU without a fault, but for those that come of `mutates`. */
export function drawPdu(random: Prng, type: PduType, digests: ModelDigests, mutates: boolean): Uint8Array {
  const { type: code, hlen } = pduTypes[type];
  const isPlain = type === 'icReq' || type === 'h2cTermReq';
  const headerDigest = digests.header && !isPlain ? DIGEST_BYTES : 0;
  const isLarge = random.chance(0.1);
  const wanted = type === 'icReq' ? 0 : random.below(1 + Math.min(dataBytesMax(type) + 1, isLarge ? 2100 : 80));
  const dataBytes = random.chance(0.4) ? 0 : wanted;
  const dataDigest = digests.data && !isPlain && dataBytes > 0 ? DIGEST_BYTES : 0;
  const pad = isPlain || dataBytes === 0 || random.chance(0.7) ? 0 : 4 * random.below(9);
  const pdu = new Uint8Array(hlen + headerDigest + pad + dataBytes + dataDigest);
  random.fill(pdu.subarray(COMMON_BYTES, COMMON_BYTES + random.below(pdu.length - COMMON_BYTES + 1)));
  const last = type === 'h2cData' && random.chance(0.5) ? pduFlags.last : 0;
  commonHeader.encode(
    {
      type: code,
      flags: (headerDigest > 0 ? pduFlags.hdgst : 0) | (dataDigest > 0 ? pduFlags.ddgst : 0) | last,
      hlen,
      pdo: dataBytes > 0 && type !== 'h2cTermReq' ? hlen + headerDigest + pad : 0,
      plen: pdu.length,
    },
    pdu,
  );
  const view = new DataView(pdu.buffer);
  if (dataDigest > 0)
    view.setUint32(pdu.length - 4, crc32c(pdu.subarray(pdu.length - 4 - dataBytes, pdu.length - 4)), true);
  if (mutates) mutatePdu(random, pdu, type);
  // What is wrong is found behind a digest that is right.
  if (headerDigest > 0 && !(mutates && random.chance(0.2))) view.setUint32(hlen, crc32c(pdu.subarray(0, hlen)), true);
  return pdu;
}

const COMMON_BYTES = commonHeader.sizeBytes;

function mutatePdu(random: Prng, pdu: Uint8Array, type: PduType): void {
  const kind = random.below(4);
  if (kind === 0) mutateBytes(random, pdu, 1 + random.below(3));
  else if (kind === 1) mutateBytes(random, pdu.subarray(0, COMMON_BYTES), 1);
  else mutateStruct(random, pdu, structs[type] ?? (commonHeader as unknown as Struct<Fields>));
}

function draw(random: Prng): PduInput {
  const digests = { header: random.chance(0.4), data: random.chance(0.4) };
  const badAt = random.chance(0.25) ? -1 : random.below(4);
  const pdus = Array.from({ length: 1 + random.below(4) }, (_, i) =>
    drawPdu(random, random.pick(hostTypes), digests, i === badAt),
  );
  let stream = joined(pdus);
  if (random.chance(0.1)) stream = mutateLength(random, stream);
  const small = random.chance(0.3);
  const chunks = Array.from({ length: 1 + random.below(4) }, () => 1 + random.below(small ? 8 : 300));
  return {
    stream,
    headerDigests: digests.header,
    dataDigests: digests.data,
    chunks: random.chance(0.3) ? [stream.length + 1] : chunks,
    hasTargets: random.chance(0.5),
  };
}

/** Keeps copies: what it is given is valid during the call only. */
class Collector implements PduReceiver {
  readonly pdus: ModelPdu[] = [];
  readonly #hasTargets: boolean;
  #target: Uint8Array | undefined;

  constructor(hasTargets: boolean) {
    this.#hasTargets = hasTargets;
  }

  dataBytesMax(type: PduType): number {
    return dataBytesMax(type);
  }

  beginPdu(type: PduType, _bytes: DataView, _at: number, dataBytes: number): Uint8Array | undefined {
    assert.ok(dataBytes <= dataBytesMax(type), `${dataBytes} bytes of data in ${type}`);
    this.#target = type === 'h2cData' && this.#hasTargets ? new Uint8Array(dataBytes) : undefined;
    return this.#target;
  }

  endPdu(type: PduType, bytes: DataView, at: number, data: Uint8Array, isIntact: boolean): void {
    if (this.#target !== undefined && data.length > 0) assert.equal(data, this.#target, 'data where it was asked for');
    const header = new Uint8Array(bytes.buffer, bytes.byteOffset + at, pduTypes[type].hlen).slice();
    this.pdus.push({ type, header, data: data.slice(), isIntact });
  }
}

/** `bug`: long data is not looked at to its end. */
const checksumOf = (bug: string | undefined) =>
  bug === 'digestOfBeginning'
    ? (bytes: Uint8Array, seed?: number) => crc32c(bytes.subarray(0, 512), seed)
    : (bytes: Uint8Array, seed?: number) => crc32c(bytes, seed);

class PduSession implements Session<PduInput> {
  readonly #context: SessionContext;

  constructor(context: SessionContext) {
    this.#context = context;
  }

  draw(random: Prng): PduInput {
    return draw(random);
  }

  play({ stream, headerDigests, dataDigests, chunks, hasTargets }: PduInput): void {
    const digests = { header: headerDigests, data: dataDigests };
    const wanted = readStream(stream, digests, dataBytesMax);
    this.#context.tally.count(wanted.pdus.length > 0);
    const receiver = new Collector(hasTargets);
    const reader = new PduReader(receiver, checksumOf(this.#context.bug));
    reader.useDigests(digests);
    let problem: unknown;
    try {
      for (let at = 0, i = 0; at < stream.length; i++) {
        // A chunk of its own: a socket's memory is used again.
        const chunk = stream.slice(at, at + chunks[i % chunks.length]!);
        reader.push(chunk);
        chunk.fill(0xee);
        at += chunk.length;
      }
    } catch (error) {
      problem = error;
    }
    if (!areSame(receiver.pdus, wanted.pdus)) assert.deepEqual(receiver.pdus.map(textOf), wanted.pdus.map(textOf));
    if (wanted.faults.length === 0) {
      assert.equal(problem, undefined, `nothing is wrong: ${String(problem)}`);
      assert.equal(reader.midPdu, wanted.isCut, 'in the middle of a PDU');
      return;
    }
    if (!(problem instanceof PduError)) {
      throw new Error(`not refused, but ${String(problem)}: ${JSON.stringify(wanted.faults)}`, { cause: problem });
    }
    const { fes, info } = problem;
    const isKnown = wanted.faults.some((fault) => fault.fes === fes && (fault.fei ?? info) === info);
    assert.ok(isKnown, `${problem.message} (${fes}, ${info}), but it is ${JSON.stringify(wanted.faults)}`);
  }

  close(): void {}
}

/** Most of them are: that they are costs no text. */
const areSame = (pdus: readonly ModelPdu[], others: readonly ModelPdu[]): boolean =>
  pdus.length === others.length &&
  pdus.every(({ type, header, data, isIntact }, i) => {
    const other = others[i]!;
    const isAlike = type === other.type && isIntact === other.isIntact;
    return isAlike && Buffer.compare(header, other.header) === 0 && Buffer.compare(data, other.data) === 0;
  });

const textOf = ({ type, header, data, isIntact }: ModelPdu): string =>
  `${type} ${Buffer.from(header).toString('hex')} ${Buffer.from(data).toString('hex')} ${isIntact}`;

export const pduTarget: Target<PduInput> = {
  name: 'pdu',
  what: 'the reader of NVMe/TCP PDUs, against a model that reads whole streams',
  framing: 'at least one PDU of the stream was delivered',
  share: 75,
  casesPerSession: 5000,
  smokeCases: 10_000,
  bugs: { digestOfBeginning: 'a data digest that covers the first 512 bytes only' },
  open: (context) => new PduSession(context),
};
