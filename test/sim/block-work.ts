/** Commands on the block namespace, and what they must answer. */
import assert from 'node:assert/strict';
import type { ErrorCode } from '../../spec/errors.ts';
import { BLOCK_NSID } from '../../spec/kv-commands.ts';
import { nvmOpcodes } from '../../spec/opcodes.ts';
import { DEALLOCATE, FUA } from '../../daemon/commands/nvm/lba-range.ts';
import { fillBlock, versionOf, ZEROS } from './block-model.ts';
import type { HostSession } from './host-session.ts';
import type { World } from './world.ts';

const LBA_BYTES = 4096;
const RANGE_BYTES = 16;
const DEALLOCATE_ATTRIBUTE = 4;

interface Range {
  readonly lba: number;
  readonly count: number;
}

function randomRange({ random, options }: World, countMax: number): Range {
  const lba = random.below(options.lbaSpan);
  return { lba, count: 1 + random.below(Math.min(countMax, options.lbaSpan - lba)) };
}

/** Reads of cells that have rotted fail. */
const rotIn = ({ blocks }: World, { lba, count }: Range): readonly ErrorCode[] =>
  Array.from({ length: count }, (_, i) => lba + i).some((one) => blocks.isRotten(one)) ? ['unrecoveredRead'] : [];

const fieldsOf = (row: { opcode: number }, { lba, count }: Range, flags = 0) => ({
  opcode: row.opcode,
  nsid: BLOCK_NSID,
  cdw10: lba,
  cdw12: ((count - 1) | flags) >>> 0,
});

export async function writeBlocks(world: World, session: HostSession): Promise<void> {
  const { blocks, random, options } = world;
  const range = randomRange(world, options.blocksPerWriteMax);
  const isFua = random.chance(options.fuaChance);
  const isThrough = session.writeThrough();
  const versions = Array.from({ length: range.count }, () => blocks.nextVersion());
  const data = new Uint8Array(range.count * LBA_BYTES);
  versions.forEach((version, i) =>
    fillBlock(data.subarray(i * LBA_BYTES, (i + 1) * LBA_BYTES), range.lba + i, version),
  );
  world.trace.explain(
    () => `write LBA ${range.lba}+${range.count}${isFua ? ' FUA' : ''}, versions ${versions.join(' ')}`,
  );
  const troubles = world.troubles();
  const writes = blocks.submit(range.lba, versions);
  const completion = await session.host.io.run(fieldsOf(nvmOpcodes.write, range, isFua ? FUA : 0), data);
  const error = world.outcome(completion, 'Write', troubles, ['capacityExceeded']);
  if (error === undefined) blocks.succeed(range.lba, writes, isFua || isThrough());
  else if (error !== 'lost') blocks.fail(writes);
}

export async function writeZeroes(world: World, session: HostSession): Promise<void> {
  const { blocks, random, options } = world;
  const range = randomRange(world, 2 * options.blocksPerWriteMax);
  const isFua = random.chance(options.fuaChance);
  const isThrough = session.writeThrough();
  world.trace.explain(() => `write zeroes LBA ${range.lba}+${range.count}${isFua ? ' FUA' : ''}`);
  const troubles = world.troubles();
  const writes = blocks.submitZeros(range.lba, range.count);
  const flags = (isFua ? FUA : 0) | (random.chance(0.5) ? DEALLOCATE : 0);
  const completion = await session.host.io.run(fieldsOf(nvmOpcodes.writeZeroes, range, flags));
  const error = world.outcome(completion, 'Write Zeroes', troubles);
  if (error === undefined) blocks.succeed(range.lba, writes, isFua || isThrough());
  else if (error !== 'lost') blocks.fail(writes);
}

export async function deallocateBlocks(world: World, session: HostSession): Promise<void> {
  const { blocks, random, options } = world;
  const ranges = Array.from({ length: 1 + random.below(3) }, () => randomRange(world, 2 * options.blocksPerWriteMax));
  const data = new Uint8Array(ranges.length * RANGE_BYTES);
  const view = new DataView(data.buffer);
  ranges.forEach(({ lba, count }, i) => {
    view.setUint32(i * RANGE_BYTES + 4, count, true);
    view.setUint32(i * RANGE_BYTES + 8, lba, true);
  });
  world.trace.explain(() => `deallocate ${ranges.map(({ lba, count }) => `LBA ${lba}+${count}`).join(' ')}`);
  const troubles = world.troubles();
  const writes = ranges.map(({ lba, count }) => blocks.submitZeros(lba, count));
  const isThrough = session.writeThrough();
  const { opcode } = nvmOpcodes.datasetManagement;
  const fields = { opcode, nsid: BLOCK_NSID, cdw10: ranges.length - 1, cdw11: DEALLOCATE_ATTRIBUTE };
  const completion = await session.host.io.run(fields, data);
  const error = world.outcome(completion, 'Dataset Management', troubles);
  ranges.forEach(({ lba }, i) => {
    if (error === undefined) blocks.succeed(lba, writes[i]!, isThrough());
    else if (error !== 'lost') blocks.fail(writes[i]!);
  });
}

export async function readBlocks(world: World, session: HostSession): Promise<void> {
  const { blocks, random, options } = world;
  const range = randomRange(world, 2 * options.blocksPerWriteMax);
  const isFua = random.chance(options.fuaChance / 2);
  world.trace.explain(() => `read LBA ${range.lba}+${range.count}${isFua ? ' FUA' : ''}`);
  const troubles = world.troubles();
  const check = blocks.read(range.lba, range.count, isFua);
  const sizeBytes = range.count * LBA_BYTES;
  const fields = fieldsOf(nvmOpcodes.read, range, isFua ? FUA : 0);
  const completion = await session.host.io.run(fields, undefined, sizeBytes);
  if (world.outcome(completion, 'Read', troubles, rotIn(world, range)) !== undefined) return;
  check(versionsIn(completion.data, range));
}

/** With what the blocks hold, as far as that is known, and sometimes with something else. */
export async function compareBlocks(world: World, session: HostSession): Promise<void> {
  const { blocks, random, options } = world;
  const range = randomRange(world, options.blocksPerWriteMax);
  const lbas = Array.from({ length: range.count }, (_, i) => range.lba + i);
  const before = lbas.map((lba) => blocks.certain(lba));
  const wrong = random.chance(0.2) ? random.below(range.count) : -1;
  const versions = before.map((write, i) => (i === wrong ? blocks.nextVersion() : (write?.version ?? ZEROS)));
  const data = new Uint8Array(range.count * LBA_BYTES);
  versions.forEach((version, i) => fillBlock(data.subarray(i * LBA_BYTES, (i + 1) * LBA_BYTES), lbas[i]!, version));
  const isFua = random.chance(options.fuaChance / 2);
  world.trace.explain(() => `compare LBA ${range.lba}+${range.count}, versions ${versions.join(' ')}`);
  const troubles = world.troubles();
  const check = blocks.read(range.lba, range.count, isFua);
  const fields = fieldsOf(nvmOpcodes.compare, range, isFua ? FUA : 0);
  const completion = await session.host.io.run(fields, data);
  const error = world.outcome(completion, 'Compare', troubles, ['compareFailure', ...rotIn(world, range)]);
  if (error === undefined) check(versions);
  if (error !== 'compareFailure') return;
  const isSame = lbas.every((lba, i) => i !== wrong && before[i] !== undefined && before[i] === blocks.certain(lba));
  assert.ok(!isSame, `Compare of LBA ${range.lba}+${range.count} with what it holds fails`);
}

function versionsIn(data: Uint8Array, { lba, count }: Range): number[] {
  assert.equal(data.length, count * LBA_BYTES, 'bytes that Read returned');
  return Array.from({ length: count }, (_, i) => versionOf(data.subarray(i * LBA_BYTES, (i + 1) * LBA_BYTES), lba + i));
}

/** LBAs that one command of a whole check reads. */
const CHECK_LBAS = 128;

/** Every LBA's version, read after a start; undefined where cells have rotted and can't be read. */
export async function readAllBlocks(world: World, session: HostSession): Promise<(number | undefined)[]> {
  const versions: (number | undefined)[] = [];
  const { lbaCount } = world.blocks;
  const read = async (range: Range): Promise<void> => {
    const fields = fieldsOf(nvmOpcodes.read, range);
    const { error, data } = await session.host.io.run(fields, undefined, range.count * LBA_BYTES);
    if (error === undefined) versions.push(...versionsIn(data, range));
    else if (range.count > 1) for (let i = 0; i < range.count; i++) await read({ lba: range.lba + i, count: 1 });
    else {
      const isRotten = error === 'unrecoveredRead' && world.blocks.isRotten(range.lba);
      assert.ok(isRotten, `Read of LBA ${range.lba} after a start ends with ${error}`);
      versions.push(undefined);
    }
  };
  for (let lba = 0; lba < lbaCount; lba += CHECK_LBAS) {
    await read({ lba, count: Math.min(CHECK_LBAS, lbaCount - lba) });
  }
  return versions;
}
