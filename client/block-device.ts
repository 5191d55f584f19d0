import { BLOCK_NSID, limits, nvmOpcodes } from '../spec/index.ts';
import type { CommandOptions } from './command.ts';
import type { Request, Transfers } from './transfers.ts';

const BLOCK_BYTES = limits.lbaSizeBytes;
const PIECES_IN_FLIGHT = 4;
/** Number of logical blocks is a 16-bit field, minus 1. */
const COMMAND_BLOCKS_MAX = 65_536;
const RANGES_MAX = 256;
const RANGE_BYTES = 16;
const RANGE_BLOCKS_MAX = 0xffff_ffff;
/** CDW12 of Write: force unit access. */
const FUA = 2 ** 30;
/** CDW11 of Dataset Management: deallocate. */
const DEALLOCATE = 4;

/**
 * The block namespace: 4 KiB blocks by number (LBA). What is larger than one command goes as several, of which any may
 * fail or be lost in a power cut on its own; a single block is never torn.
 */
export class BlockDevice {
  readonly #transfers: Transfers;

  constructor(modules: { transfers: Transfers }) {
    this.#transfers = modules.transfers;
  }

  /** Bytes of a block. */
  readonly blockSizeBytes = BLOCK_BYTES;

  /** Reads `blockCount` blocks. Blocks never written, and deallocated ones, are zeros. DriveCommandError lbaRange. */
  async read(lba: number, blockCount: number, options: CommandOptions = {}): Promise<Uint8Array> {
    checkBlocks(lba, blockCount);
    const target = new Uint8Array(blockCount * BLOCK_BYTES);
    if (blockCount <= this.#pieceBlocks) {
      await this.#transfers.receive(blockRequest(nvmOpcodes.read, lba, blockCount), target, options);
      return target;
    }
    await this.#inPieces(lba, blockCount, this.#pieceBlocks, (at, count) => {
      const from = (at - lba) * BLOCK_BYTES;
      const bytes = target.subarray(from, from + count * BLOCK_BYTES);
      return this.#transfers.receive(blockRequest(nvmOpcodes.read, at, count), bytes, options);
    });
    return target;
  }

  /** Writes whole blocks. With `fua` it resolves once they are durable, else once the drive has them in its cache. */
  async write(lba: number, bytes: Uint8Array, options: CommandOptions & { fua?: boolean } = {}): Promise<void> {
    const blockCount = bytes.byteLength / BLOCK_BYTES;
    if (!Number.isInteger(blockCount))
      throw new RangeError(`${bytes.byteLength} bytes are not whole blocks of ${BLOCK_BYTES}`);
    checkBlocks(lba, blockCount);
    const flags = options.fua === true ? FUA : 0;
    if (blockCount <= this.#pieceBlocks) {
      await this.#transfers.send(blockRequest(nvmOpcodes.write, lba, blockCount, flags), [bytes], options);
      return;
    }
    await this.#inPieces(lba, blockCount, this.#pieceBlocks, (at, count) => {
      const from = (at - lba) * BLOCK_BYTES;
      const request = blockRequest(nvmOpcodes.write, at, count, flags);
      return this.#transfers.send(request, [bytes.subarray(from, from + count * BLOCK_BYTES)], options);
    });
  }

  /** Makes everything durable that completed before. */
  async flush(options: CommandOptions = {}): Promise<void> {
    const request: Request = { opcode: nvmOpcodes.flush, subject: () => 'block namespace', namespaceId: BLOCK_NSID };
    await this.#transfers.execute(request, options);
  }

  /** Blocks become zeros without data being sent. */
  async writeZeroes(lba: number, blockCount: number, options: CommandOptions = {}): Promise<void> {
    await this.#inPieces(lba, blockCount, COMMAND_BLOCKS_MAX, (at, count) => {
      return this.#transfers.execute(blockRequest(nvmOpcodes.writeZeroes, at, count), options);
    });
  }

  /** The drive may forget these blocks; they read as zeros. */
  async deallocate(
    ranges: readonly { readonly lba: number; readonly blockCount: number }[],
    options: CommandOptions = {},
  ): Promise<void> {
    for (const { lba, blockCount } of ranges) checkBlocks(lba, blockCount);
    for (let from = 0; from < ranges.length; from += RANGES_MAX) {
      const batch = ranges.slice(from, from + RANGES_MAX);
      const data = new DataView(new ArrayBuffer(batch.length * RANGE_BYTES));
      batch.forEach(({ lba, blockCount }, index) => {
        if (blockCount > RANGE_BLOCKS_MAX)
          throw new RangeError(`range of ${blockCount} blocks; at most ${RANGE_BLOCKS_MAX}`);
        data.setUint32(index * RANGE_BYTES + 4, blockCount, true);
        data.setBigUint64(index * RANGE_BYTES + 8, BigInt(lba), true);
      });
      const request: Request = {
        opcode: nvmOpcodes.datasetManagement,
        subject: () => `${batch.length} ranges from block ${batch[0]?.lba}`,
        namespaceId: BLOCK_NSID,
        cdw10: batch.length - 1,
        cdw11: DEALLOCATE,
      };
      await this.#transfers.send(request, [new Uint8Array(data.buffer)], options);
    }
  }

  get #pieceBlocks(): number {
    return Math.max(1, Math.floor(this.#transfers.pieceBytesMax / BLOCK_BYTES));
  }

  async #inPieces(
    lba: number,
    blockCount: number,
    pieceBlocks: number,
    run: (lba: number, blockCount: number) => Promise<unknown>,
  ): Promise<void> {
    checkBlocks(lba, blockCount);
    let next = lba;
    const end = lba + blockCount;
    const work = async (): Promise<void> => {
      while (next < end) {
        const at = next;
        next = Math.min(at + pieceBlocks, end);
        await run(at, next - at);
      }
    };
    const pieceCount = Math.ceil(blockCount / pieceBlocks);
    await Promise.all(Array.from({ length: Math.min(PIECES_IN_FLIGHT, pieceCount) }, work));
  }
}

function blockRequest(opcode: Request['opcode'], lba: number, blockCount: number, flags = 0): Request {
  return {
    opcode,
    subject: () => `blocks ${lba} to ${lba + blockCount}`,
    namespaceId: BLOCK_NSID,
    cdw10: lba % 2 ** 32,
    cdw11: Math.floor(lba / 2 ** 32),
    cdw12: blockCount - 1 + flags,
  };
}

function checkBlocks(lba: number, blockCount: number): void {
  if (!Number.isSafeInteger(lba) || lba < 0) throw new RangeError(`block ${lba} is not a block number`);
  if (!Number.isSafeInteger(blockCount) || blockCount < 1) throw new RangeError(`${blockCount} blocks; at least 1`);
}
