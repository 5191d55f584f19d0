import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BlockTable, TABLE_SEGMENT_ENTRIES } from '../../daemon/kv/block-table.ts';
import type { Lpn } from '../../daemon/ftl/contract.ts';

class Stored {
  readonly segments = new Map<number, Uint8Array>();
  writtenCount = 0;

  save(table: BlockTable): void {
    table.save(
      (segment, entries) => {
        assert.ok(entries.byteLength > 0 && entries.byteLength <= TABLE_SEGMENT_ENTRIES * 4);
        this.segments.set(segment, entries);
        this.writtenCount++;
      },
      (segment) => assert.ok(this.segments.delete(segment), `segment ${segment} was stored`),
    );
  }

  load(streamCount: number, groupCount: number): BlockTable {
    const table = new BlockTable(streamCount);
    for (const segment of [...this.segments.keys()].sort((a, b) => a - b)) {
      table.loadSegment(segment, this.segments.get(segment)!);
    }
    table.loaded(groupCount);
    return table;
  }
}

function extend(table: BlockTable, model: number[][], groupCount: number, next: () => number): void {
  table.reserveGroups(groupCount);
  for (let group = table.groupCount; group < groupCount; group++) {
    model[group] = [];
    for (let stream = 0; stream < table.streamCount; stream++) {
      const page = next();
      table.write(group, stream, page as Lpn);
      model[group]![stream] = page;
    }
  }
  table.extendTo(groupCount);
}

function assertTable(table: BlockTable, model: readonly number[][]): void {
  assert.equal(table.groupCount, model.length);
  model.forEach((row, group) => row.forEach((page, stream) => assert.equal(table.page(group, stream), page)));
}

test('segments hold what the table held, whatever grew and shrank in between', () => {
  const step = fc.record({ groups: fc.nat({ max: 400 }), save: fc.boolean() });
  fc.assert(
    fc.property(fc.constantFrom(2, 6, 10), fc.array(step, { maxLength: 12 }), (streamCount, steps) => {
      const table = new BlockTable(streamCount);
      const stored = new Stored();
      const model: number[][] = [];
      let page = 0;
      for (const { groups, save } of steps) {
        if (groups < table.groupCount) {
          table.cutTo(groups);
          model.length = groups;
        } else {
          extend(table, model, groups, () => page++);
        }
        if (save) stored.save(table);
      }
      stored.save(table);
      assertTable(table, model);
      assertTable(stored.load(streamCount, table.groupCount), model);
      assert.equal(table.savedSegmentCount, stored.segments.size);
    }),
    { seed: 7, numRuns: 100 },
  );
});

test('a table that grew by one group writes one segment', () => {
  const table = new BlockTable(16);
  const stored = new Stored();
  const model: number[][] = [];
  extend(table, model, 640, () => 1);
  stored.save(table);
  assert.equal(stored.writtenCount, 10);
  extend(table, model, 641, () => 2);
  stored.save(table);
  assert.equal(stored.writtenCount, 11);
  stored.save(table);
  assert.equal(stored.writtenCount, 11);
});
