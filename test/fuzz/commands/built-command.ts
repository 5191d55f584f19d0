/** A command on its way to be an input: what its entry says, and what the host sends or takes. */
import { drawNumber } from '../mutate.ts';
import type { Prng } from '../../sim/prng.ts';
import type { HostModel } from './drive-model.ts';
import type { Dwords } from './submission.ts';

export interface BuiltCommand extends Partial<Dwords> {
  readonly opcode: number;
  readonly nsid?: number;
  /** Data that the host sends. */
  readonly send?: Uint8Array;
  /** Bytes that it takes. */
  readonly take?: number;
}

/** A number of the entry: mostly the right one. */
export const nearly = (random: Prng, right: number): number => (random.chance(0.93) ? right : drawNumber(random));

/** Some region of the host, with room for so many bytes. */
export function drawRegion(
  random: Prng,
  host: HostModel,
  lengthBytes: number,
): { key: number; offset: number } | undefined {
  if (host.regions.size === 0) return undefined;
  const { key, sizeBytes } = random.pick([...host.regions.values()]);
  if (sizeBytes < lengthBytes) return undefined;
  return { key, offset: 4 * random.below(Math.min(200, Math.floor((sizeBytes - lengthBytes) / 4)) + 1) };
}
