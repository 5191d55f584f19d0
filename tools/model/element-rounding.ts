/** Rounds float32 values to what they would be after a trip through a narrower type, to nearest even. */
import type { ElementType } from '../../spec/element-type.ts';

const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

function toBf16(value: number): number {
  if (Number.isNaN(value)) return value;
  scratch[0] = value;
  const bits = scratchBits[0]!;
  scratchBits[0] = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff_0000;
  return scratch[0]!;
}

const F16_MAX = 65_504;
/** From here on the nearest f16 is infinity. */
const F16_OVERFLOW = 65_520;

function toF16(value: number): number {
  const magnitude = Math.abs(value);
  if (!(magnitude < F16_OVERFLOW)) return Number.isNaN(value) ? value : Math.sign(value) * Number.POSITIVE_INFINITY;
  if (magnitude > F16_MAX) return Math.sign(value) * F16_MAX;
  // Ten bits after the leading one, none below 2^-24: adding and taking away 1.5 * 2^52 steps rounds to nearest even.
  const exponent = Math.max(magnitude === 0 ? -14 : Math.floor(Math.log2(magnitude)), -14);
  const step = 2 ** (exponent - 10);
  const steps = value / step;
  const rounder = 6_755_399_441_055_744;
  return (steps + rounder - rounder) * step;
}

/** Copies `source` to `target` at `offset`, rounded to `type`. */
export function copyRounded(type: ElementType, source: Float32Array, target: Float32Array, offset: number): void {
  if (type === 'f32') {
    target.set(source, offset);
    return;
  }
  const round = type === 'f16' ? toF16 : toBf16;
  for (let i = 0; i < source.length; i++) target[offset + i] = round(source[i]!);
}
