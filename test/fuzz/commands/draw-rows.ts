/** Sequences to name, and rows to put into them. */
import type { ElementType } from '../../../spec/element-type.ts';
import type { Prng } from '../../sim/prng.ts';
import type { DriveModel, HostModel } from './drive-model.ts';
import { converted, dimOfPart, type SequenceModel, type Shape } from './sequence-model.ts';

/** A sequence that the host may name; undefined: there is none. */
export function drawSequence(random: Prng, model: DriveModel, host: HostModel): SequenceModel | undefined {
  const own = [...model.sequences.values()].filter(({ owner }) => !host.isConfined || owner === host.host);
  return own.length === 0 ? undefined : random.pick(own);
}

/** Rows of numbers, [token][head], in a type of the wire. */
export function drawRows(random: Prng, shape: Shape, part: 0 | 1, tokens: number, type: ElementType): Uint8Array {
  const dim = dimOfPart(shape, part);
  const rowCount = tokens * shape.kvHeadCount;
  const values = new Float32Array(rowCount * dim);
  const seed = random.nextUint32();
  for (let i = 0; i < values.length; i++) values[i] = ((Math.imul(seed + i, 0x9e3779b1) >>> 16) / 32_768 - 1) * 2;
  if (random.chance(0.02)) values[random.below(values.length)] = random.pick([Number.NaN, Infinity, 1e38, -0]);
  return converted(new Uint8Array(values.buffer), 'f32', type, rowCount, dim);
}
