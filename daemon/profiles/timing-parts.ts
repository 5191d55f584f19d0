import type { ComputeTiming } from './timing-profile.ts';

/** Grouped-query attention with four query heads on a KV head takes this from 16-bit keys and values. */
const FLOPS_PER_BYTE = 4;

/** The engine that a product without one would need for attention to run at the speed of its flash channels. */
export function engineAsFastAsChannels(channelCount: number, channelBytesPerSecond: number): ComputeTiming {
  const bytesPerSecond = channelCount * channelBytesPerSecond;
  return { unitCount: 1, bytesPerSecond, flopsPerSecond: bytesPerSecond * FLOPS_PER_BYTE, headNs: 0 };
}
