/** A sequence in the drive with as many filled layers as a benchmark goes through. */
import type { DriveClient, PreparedAttend, Sequence } from '../../client/index.ts';
import { type BenchShape, layerBytes } from './shapes.ts';

/** Appended at a time. */
const CHUNK_BYTES = 4 * 2 ** 20;
const F16_BYTES = 2;

/** f16 values of either sign between 2^-7 and 1, not all alike. */
export function randomHalves(count: number, seed: number): Uint16Array {
  const values = new Uint16Array(count);
  let state = seed >>> 0;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const exponent = 8 + ((state >>> 28) % 7);
    values[i] = ((state >>> 16) & 0x8000) | (exponent << 10) | ((state >>> 8) & 0x3ff);
  }
  return values;
}

export async function fillSequence(
  client: DriveClient,
  shape: BenchShape,
  onProgress: (share: number) => void,
): Promise<Sequence> {
  const { kvHeadCount, headDim, tokenCount, layerCount } = shape;
  const request = { layerCount, kvHeadCount, headDimK: headDim, elementTypeK: 'f16' } as const;
  const sequence = await client.kv.create(request, { label: `bench ${shape.name}` });
  const rowElements = kvHeadCount * headDim;
  const { groupTokens } = sequence.shape;
  const wanted = Math.floor(CHUNK_BYTES / (2 * rowElements * F16_BYTES));
  const chunkTokens = Math.min(tokenCount, Math.max(groupTokens, wanted - (wanted % groupTokens)));
  const keys = randomHalves(chunkTokens * rowElements, 1);
  const values = randomHalves(chunkTokens * rowElements, 2);
  for (let layer = 0; layer < layerCount; layer++) {
    for (let position = 0; position < tokenCount; position += chunkTokens) {
      const elements = Math.min(chunkTokens, tokenCount - position) * rowElements;
      await sequence.append(layer, position, keys.subarray(0, elements), values.subarray(0, elements));
      onProgress((layer * tokenCount + position) / (layerCount * tokenCount));
    }
  }
  await client.kv.flush();
  return sequence;
}

/** One query token over a whole layer; the layer is set before each post. */
export async function prepareQuery(
  client: DriveClient,
  sequence: Sequence,
  shape: BenchShape,
): Promise<PreparedAttend> {
  const queryHeadsPerKvHead = shape.queryHeadCount / shape.kvHeadCount;
  const request = await client.prepareAttend([{ sequence, layer: 0, queryHeadsPerKvHead }], {});
  const { queries } = request.entries[0]!;
  for (let i = 0; i < queries.length; i++) queries[i] = Math.sin(i * 12.9898);
  return request;
}

/** Attends to every layer once: pages are checked, and mapped, on their first use. */
export async function warmUp(request: PreparedAttend, shape: BenchShape): Promise<void> {
  const entry = request.entries[0]!;
  for (let layer = 0; layer < shape.layerCount; layer++) {
    entry.layer = layer;
    await request.post();
  }
}

/** K and V of all layers, with room to spare. */
export const capacityBytesFor = (shape: BenchShape): number => {
  const bytes = layerBytes(shape) * shape.layerCount;
  return Math.ceil((bytes * 1.1) / 2 ** 20) * 2 ** 20 + 32 * 2 ** 20;
};
