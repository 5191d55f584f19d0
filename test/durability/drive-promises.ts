/** What a drive has promised, as spec/durability.md has it, and whether one that was opened again keeps it. */
import assert from 'node:assert/strict';
import { readRows, rowsOf } from '../kv/fixture.ts';
import { type ModelSequence, SequenceModel } from '../kv/sequence-model.ts';
import { lbaVersion } from '../ftl/open-drive.ts';
import type { WholeFtl } from './whole-ftl.ts';

interface Block {
  /** The last version that a write was begun with; a version may stand for zeros. */
  issued: number;
  completed: number;
  durable: number;
  readonly zeros: Set<number>;
}

/**
 * One host's commands, one after another. Everything is noted before the drive is asked, since a crash may find a command
 * that was in flight; `completed` when it has answered.
 */
export class DrivePromises {
  blocks: Block[];
  sequences = new SequenceModel();
  /** Number of the last create, fork, truncate or reclaim, and of the last that is durable. */
  operation = 0;
  durableOperation = 0;

  constructor(lbaCount: number) {
    this.blocks = Array.from({ length: lbaCount }, () => ({ issued: 0, completed: 0, durable: 0, zeros: new Set() }));
  }

  copy(): DrivePromises {
    const copied = new DrivePromises(0);
    copied.blocks = this.blocks.map((block) => ({ ...block, zeros: new Set(block.zeros) }));
    copied.sequences = this.sequences.copy();
    copied.operation = this.operation;
    copied.durableOperation = this.durableOperation;
    return copied;
  }

  /** Returns the new version. */
  issue(lba: number, isZeros = false): number {
    const block = this.blocks[lba]!;
    block.issued++;
    if (isZeros) block.zeros.add(block.issued);
    return block.issued;
  }

  completed(lba: number, version: number): void {
    this.blocks[lba]!.completed = version;
  }

  /** Everything that has completed is durable. */
  allDurable(): void {
    for (const block of this.blocks) block.durable = block.completed;
    this.sequences.markDurable();
    this.durableOperation = this.operation;
  }

  /** Checks what is found, and goes on from there: it is all durable now. */
  async adopt(drive: WholeFtl): Promise<void> {
    await this.#adoptBlocks(drive);
    await this.#adoptSequences(drive);
  }

  async #adoptBlocks({ ftl }: WholeFtl): Promise<void> {
    for (const [lba, block] of this.blocks.entries()) {
      const found = await lbaVersion(ftl, lba);
      const { durable, issued, zeros } = block;
      // Zeros are version 0, or any deallocation since.
      const version = found > 0 ? found : durable === 0 ? 0 : [...zeros].find((zero) => zero >= durable);
      const isAllowed = version !== undefined && version >= durable && version <= issued;
      assert.ok(isAllowed, `LBA ${lba}: version ${found}; ${durable} was durable, ${issued} was begun last`);
      this.blocks[lba] = { issued, completed: version, durable: version, zeros };
    }
  }

  /** What is there must be what the operations up to some point have made, none of which may be before the last durable. */
  async #adoptSequences(drive: WholeFtl): Promise<void> {
    const failures: string[] = [];
    for (let operation = this.operation; operation >= this.durableOperation; operation--) {
      const found = await matches(drive, this.sequences.survivors(operation), operation);
      if (typeof found === 'string') failures.push(`as of operation ${operation}: ${found}`);
      else {
        this.sequences = SequenceModel.found(found);
        this.durableOperation = this.operation;
        return;
      }
    }
    assert.fail(`the sequences are as no point in time had them:\n${failures.join('\n')}`);
  }
}

interface FoundSequence {
  readonly id: bigint;
  readonly shape: ModelSequence['shape'];
  readonly tokens: number[][];
}

/** What was found, or why it can't be these sequences. */
async function matches(
  drive: WholeFtl,
  survivors: readonly ModelSequence[],
  operation: number,
): Promise<FoundSequence[] | string> {
  const ids = drive.store.list(0n, 1000);
  const expected = survivors.map(({ id }) => id).sort((a, b) => (a < b ? -1 : 1));
  if (ids.join() !== expected.join()) return `sequences ${ids.join()}, not ${expected.join()}`;
  const found: FoundSequence[] = [];
  for (const sequence of survivors) {
    const { id, shape, layers } = sequence;
    const { lengths } = drive.store.summary(id);
    const tokens: number[][] = [];
    for (const layer of layers.keys()) {
      const length = lengths[layer]!;
      const surviving = SequenceModel.surviving(sequence, layer, operation);
      if (length < surviving.lengthMin || length > surviving.tokens.length) {
        return `layer ${layer} of ${id} has ${length} tokens, not ${surviving.lengthMin} to ${surviving.tokens.length}`;
      }
      const held = surviving.tokens.slice(0, length);
      const bytes = length === 0 ? new Uint8Array() : await readRows(drive, id, layer, 0, length);
      if (Buffer.compare(bytes, rowsOf(shape, layer, held)) !== 0) return `layer ${layer} of ${id} has other tokens`;
      tokens.push(held);
    }
    found.push({ id, shape, tokens });
  }
  return found;
}
