/** Namespace 2 by `nvme io-passthru` on its generic device, beside the SDK on the same sequence. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { packBits } from '../../spec/bits.ts';
import { elementTypes } from '../../spec/element-type.ts';
import {
  attendEntry,
  attendHeader,
  attendOutputs,
  createDescriptor,
  DESCRIPTOR_VERSION,
  KV_CACHE_NSID,
  kvTransferBits,
} from '../../spec/kv-commands.ts';
import { directionOf, kvOpcodes, type OpcodeRow } from '../../spec/opcodes.ts';
import type { GuestDevices, LinuxRig } from './linux-rig.ts';

const SEQUENCE_ID = 0x1234;
const SLOT = 5;
const TOKENS = 150;
const QUERY_HEADS_PER_KV_HEAD = 2;
const shape = { layerCount: 1, kvHeadCount: 2, headDimK: 16, headDimV: 16 };

const values = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(seed + 0.7 * i) + 0.1 * Math.cos(3.1 * i));
const bytesOf = (floats: Float32Array): Buffer => Buffer.from(floats.buffer, floats.byteOffset, floats.byteLength);

interface Passthrough {
  readonly dwords?: Readonly<Record<string, number>>;
  readonly send?: Uint8Array;
  readonly receiveBytes?: number;
}

export function kvTests(rig: LinuxRig): void {
  let devices: GuestDevices;

  /** One command of the KV-cache command set; returns what it gave. */
  async function passThrough(row: OpcodeRow, { dwords = {}, send, receiveBytes = 0 }: Passthrough): Promise<Buffer> {
    const lengthBytes = send?.length ?? receiveBytes;
    const options = Object.entries(dwords).map(([name, value]) => `--${name}=${value}`);
    if (send !== undefined) await rig.guest.writeFile('/tmp/in', send);
    if (lengthBytes > 0) {
      const direction = directionOf(row.opcode) === 1 ? '--write --input-file=/tmp/in' : '--read --raw-binary';
      options.push(`--data-len=${lengthBytes} ${direction}`);
    }
    const command = `nvme io-passthru ${devices.kv} --namespace-id=${KV_CACHE_NSID} --opcode=${row.opcode}`;
    return rig.guest.bytes(`${command} ${options.join(' ')}`);
  }

  describe('the KV-cache namespace', () => {
    before(async () => {
      devices = await rig.connect();
    });
    after(() => rig.disconnect());

    test('create, append, ATTN and its result: to the byte what the SDK gets', async () => {
      const rowBytes = TOKENS * shape.kvHeadCount * shape.headDimK;
      const keys = values(rowBytes, 1);
      const valueRows = values(rowBytes, 2);
      const { kvHeadCount, headDimK } = shape;
      const queries = values(kvHeadCount * QUERY_HEADS_PER_KV_HEAD * headDimK, 3);
      const types = { elementTypeK: elementTypes.f32.code, elementTypeV: elementTypes.f32.code };
      const descriptor = { version: DESCRIPTOR_VERSION, sequenceId: BigInt(SEQUENCE_ID), ...shape, ...types };
      await passThrough(kvOpcodes.create, { send: createDescriptor.encode(descriptor) });
      await passThrough(kvOpcodes.append, {
        dwords: { cdw10: SEQUENCE_ID, cdw12: packBits(kvTransferBits, {}), cdw13: 0, cdw14: TOKENS },
        send: Buffer.concat([bytesOf(keys), bytesOf(valueRows)]),
      });
      const queryOffset = attendHeader.sizeBytes + attendEntry.sizeBytes;
      const header = attendHeader.encode({
        version: DESCRIPTOR_VERSION,
        entryCount: 1,
        queryType: elementTypes.f32.code,
        outputType: elementTypes.f32.code,
      });
      const entry = attendEntry.encode({
        sequenceId: BigInt(SEQUENCE_ID),
        queryHeadsPerKvHead: QUERY_HEADS_PER_KV_HEAD,
        queryTokenCount: 1,
        tokenEnd: TOKENS,
        queryOffset,
        outKind: attendOutputs.slot,
        outKey: SLOT,
      });
      await passThrough(kvOpcodes.attend, { send: Buffer.concat([header, entry, bytesOf(queries)]) });
      const receiveBytes = queries.byteLength;
      const result = await passThrough(kvOpcodes.attendResult, { dwords: { cdw10: SLOT }, receiveBytes });

      const client = await rig.client();
      try {
        const sequence = await client.kv.open(BigInt(SEQUENCE_ID));
        const back = await sequence.readBack({ layer: 0 });
        assert.deepEqual(back.keys, keys);
        const [attended] = await client.attend([
          { sequence, layer: 0, queryHeadsPerKvHead: QUERY_HEADS_PER_KV_HEAD, queries },
        ]);
        assert.equal(result.toString('hex'), bytesOf(attended?.output as Float32Array).toString('hex'));
        await sequence.reclaim();
      } finally {
        await client.close();
      }
    });
  });
}
