/** What a queue keeps of the commands that came: their entries, and where they are found again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { submissionEntry } from '../../spec/submission-entry.ts';
import { dwordNames } from '../../daemon/commands/contract.ts';
import { EntryWords } from '../../daemon/controller/entry-words.ts';
import { type InFlightCommand, InFlightCommands } from '../../daemon/controller/in-flight-commands.ts';

const { sizeBytes } = submissionEntry;
const entryBytes = fc.uint8Array({ minLength: sizeBytes, maxLength: sizeBytes });

test('a submission entry reads as the table of spec/ says, wherever it lay', () => {
  const entry = new EntryWords();
  fc.assert(
    fc.property(entryBytes, fc.nat(9), (bytes, at) => {
      const around = new Uint8Array(at + sizeBytes).fill(0xee);
      around.set(bytes, at);
      entry.loadEntry(new DataView(around.buffer), at);
      around.fill(0xdd);
      const { metadataPointer, sgl, ...fields } = submissionEntry.decode(bytes);
      for (const [name, value] of Object.entries(fields)) {
        assert.equal(entry[name as keyof typeof fields], value, name);
      }
      assert.deepEqual(entry.bytes, bytes);
      assert.equal(
        entry.hasMetadataPointer,
        metadataPointer.some((byte) => byte !== 0),
      );
      const words = new DataView(sgl.buffer, sgl.byteOffset);
      for (let i = 0; i < 4; i++) assert.equal(entry.sglWord(i), words.getUint32(4 * i, true));
    }),
    { numRuns: 2000, seed: 5 },
  );
});

test('a bit of a command dword is seen by its mask, and by no other', () => {
  const entry = new EntryWords();
  for (const [index, name] of dwordNames.entries()) {
    for (let bit = 0; bit < 32; bit++) {
      const value = 2 ** bit;
      const bytes = submissionEntry.encode({ opcode: 0xff, flags: 0xff, commandId: 0xffff, [name]: value });
      entry.loadEntry(new DataView(bytes.buffer, bytes.byteOffset), 0);
      const masks = (own: number, others: number) =>
        Uint32Array.from(dwordNames, (_, i) => (i === index ? own : others));
      assert.equal(entry.hasBits(masks(value, 0)), true, `${name}, bit ${bit}`);
      assert.equal(entry.hasBits(masks(~value, 0xffff_ffff)), false, `${name}, all but bit ${bit}`);
    }
  }
});

test('commands in flight are found by their ids, however those collide', () => {
  const step = fc.record({
    commandId: fc.oneof(
      fc.nat(40),
      fc.nat(8).map((n) => n * 4096),
    ),
    look: fc.nat(0xffff),
  });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 130 }), fc.array(step, { maxLength: 300 }), (bucketCount, steps) => {
      const table = new InFlightCommands<InFlightCommand>(bucketCount);
      const model = new Map<number, InFlightCommand>();
      for (const { commandId, look } of steps) {
        const old = model.get(commandId);
        if (old === undefined) {
          const command = { commandId, nextInChain: undefined };
          table.add(command);
          model.set(commandId, command);
        } else {
          table.remove(old);
          model.delete(commandId);
          assert.equal(old.nextInChain, undefined, 'what is out of the table holds nothing of it');
        }
        assert.equal(table.size, model.size);
        for (const id of [look, ...model.keys()]) assert.equal(table.get(id), model.get(id));
      }
    }),
    { numRuns: 300, seed: 8 },
  );
});

test('a command that is not in the table is not removed from it', () => {
  const table = new InFlightCommands<InFlightCommand>(8);
  const command = { commandId: 3, nextInChain: undefined };
  table.add({ commandId: 11, nextInChain: undefined });
  assert.throws(() => table.remove(command), /removed once/);
});
