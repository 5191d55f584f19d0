/** Commands of the block namespace, nearly right. */
import { BLOCK_NSID } from '../../../spec/kv-commands.ts';
import { nvmOpcodes } from '../../../spec/opcodes.ts';
import type { Prng } from '../../sim/prng.ts';
import { drawNumber } from '../mutate.ts';
import { type BuiltCommand, nearly } from './built-command.ts';
import { type DriveModel, LBA_BYTES } from './drive-model.ts';

const FUA = 2 ** 30;

/** Blocks that differ, and are cheap to make. */
function drawBlocks(random: Prng, count: number): Uint8Array {
  const bytes = new Uint8Array(count * LBA_BYTES);
  if (random.chance(0.1)) return bytes;
  const words = new Uint32Array(bytes.buffer);
  const word = random.nextUint32();
  for (let i = 0; i < words.length; i++) words[i] = word ^ i;
  return bytes;
}

const weights = {
  write: 24,
  read: 24,
  compare: 14,
  writeZeroes: 10,
  datasetManagement: 10,
  verify: 10,
  flush: 6,
} as const;

export function drawNvm(random: Prng, model: DriveModel): BuiltCommand {
  const { lbaCount } = model.traits;
  const kind = random.weighted(weights);
  const { opcode } = nvmOpcodes[kind];
  const common = { opcode, nsid: BLOCK_NSID };
  if (kind === 'flush') return random.chance(0.2) ? { opcode, nsid: 0xffff_ffff } : common;
  const count = random.pick([1, 1, 1, 2, 3, 5, random.chance(0.1) ? 40 : 1]);
  // A few blocks are used again and again.
  const lba = random.chance(0.8) ? random.below(24) : random.below(lbaCount);
  if (kind === 'datasetManagement') {
    const ranges = 1 + random.below(4);
    const send = new Uint8Array(random.chance(0.1) ? 4096 : ranges * 16);
    const view = new DataView(send.buffer);
    for (let i = 0; i < ranges; i++) {
      view.setUint32(16 * i, random.below(3), true);
      view.setUint32(16 * i + 4, random.below(6), true);
      view.setUint32(16 * i + 8, nearly(random, lba + random.below(8)), true);
    }
    return { ...common, cdw10: ranges - 1, cdw11: random.chance(0.8) ? 4 : random.below(8), send };
  }
  const fua = random.chance(0.15) ? FUA : 0;
  const dwords = {
    cdw10: random.chance(0.95) ? lba : drawNumber(random),
    cdw11: random.chance(0.97) ? 0 : drawNumber(random),
    cdw12: ((count - 1) | fua) >>> 0,
  };
  if (kind === 'write') return { ...common, ...dwords, send: drawBlocks(random, count) };
  if (kind === 'read') return { ...common, ...dwords, take: count * LBA_BYTES };
  if (kind === 'compare') {
    const send = drawBlocks(random, count);
    for (let i = 0; i < count; i++) if (random.chance(0.85)) send.set(model.block(lba + i), i * LBA_BYTES);
    return { ...common, ...dwords, send };
  }
  return { ...common, ...dwords };
}
