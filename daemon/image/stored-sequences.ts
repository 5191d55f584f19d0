import type { MetaReader, MetaRecord } from '../meta/contract.ts';
import { metaNamespaces } from '../meta/namespaces.ts';
import { BlockTable, TABLE_SEGMENT_ENTRIES } from '../kv/block-table.ts';
import { decodeSequence, decodeState, type SequenceRecord, stateKey } from '../kv/metadata-records.ts';
import type { FoundSequence } from '../kv/recovery.ts';
import { resolveShape } from '../kv/shape.ts';
import type { Report } from './finding.ts';

/** Every record of a namespace that can be read; a store that fails in the middle is reported. */
export function* recordsOf(meta: MetaReader, namespace: number, report: Report): Iterable<MetaRecord> {
  try {
    yield* meta.range(namespace);
  } catch (error) {
    report({
      kind: 'metadata',
      text: `namespace ${namespace}: ${(error as Error).message}`,
      lost: [{ kind: 'unknown' }],
    });
  }
}

/**
 * The sequences of the last transaction, each by itself: what is wrong with one is reported and hides no other. Rows that
 * are in the staging log only are not looked for.
 */
export function* readSequences(meta: MetaReader, pageSizeBytes: number, report: Report): Iterable<FoundSequence> {
  const segments = readSegments(meta, report);
  for (const { key, value } of recordsOf(meta, metaNamespaces.kvSequences, report)) {
    const name = `sequence record ${key.join('/')}`;
    let record: SequenceRecord;
    try {
      record = decodeSequence(key, value);
      resolveShape(record.shape, pageSizeBytes);
    } catch (error) {
      report({ kind: 'sequence', text: `${name}: ${(error as Error).message}`, lost: lostSequence(String(key[0])) });
      continue;
    }
    const { id, shape, lengths, generations } = record;
    const own = segments.get(String(key[0])) ?? new Map<number, Uint8Array[]>();
    segments.delete(String(key[0]));
    const layers = lengths.map((length, layer) => {
      const groupCount = Math.floor(length / shape.groupTokens);
      const table = readTable(own.get(layer) ?? [], shape.kvHeadCount * 2, groupCount);
      const groupTokensFound = table.groupCount * shape.groupTokens;
      own.delete(layer);
      if (table.groupCount < groupCount) {
        const missing = { layer, firstToken: groupTokensFound, tokenCount: length - groupTokensFound };
        const text = `sequence ${id}, layer ${layer}: the block table has ${table.groupCount} groups, must have ${groupCount}`;
        report({ kind: 'sequence', text, lost: [{ kind: 'tokens', sequenceId: id, ...missing }] });
      }
      return {
        table,
        generation: generations[layer]!,
        length: table.groupCount < groupCount ? groupTokensFound : length,
        cut: undefined,
        staged: [],
        droppedPageCount: 0,
        droppedTailCount: 0,
        lostTokenCount: 0,
      };
    });
    for (const layer of own.keys()) {
      const text = `sequence ${id}: a block table of layer ${layer}; it has ${shape.layerCount} layers`;
      report({ kind: 'sequence', text, lost: [] });
    }
    yield { request: record, parentId: record.parentId, layers };
  }
  for (const id of segments.keys()) {
    report({ kind: 'sequence', text: `block tables of sequence ${id}, which has no record`, lost: lostSequence(id) });
  }
}

const lostSequence = (text: string) =>
  /^[0-9a-f]{16}$/.test(text)
    ? [{ kind: 'sequence' as const, sequenceId: BigInt(`0x${text}`) }]
    : [{ kind: 'unknown' as const }];

/** [sequence as in the key][layer] -> segments that follow each other from 0 on. */
function readSegments(meta: MetaReader, report: Report): Map<string, Map<number, Uint8Array[]>> {
  const sequences = new Map<string, Map<number, Uint8Array[]>>();
  for (const { key, value } of recordsOf(meta, metaNamespaces.kvLayers, report)) {
    const [id, layer, segment] = key;
    const wrong = (what: string): void =>
      report({ kind: 'sequence', text: `block table ${key.join('/')}: ${what}`, lost: lostSequence(String(id)) });
    const isKey = typeof id === 'string' && Number.isInteger(layer) && Number.isInteger(segment) && key.length === 3;
    if (!isKey) {
      wrong('must be sequence/layer/segment');
      continue;
    }
    const sequence = sequences.get(id) ?? new Map<number, Uint8Array[]>();
    sequences.set(id, sequence);
    const found = sequence.get(layer as number) ?? [];
    sequence.set(layer as number, found);
    if (!(value instanceof Uint8Array) || value.length % 4 !== 0 || value.length > 4 * TABLE_SEGMENT_ENTRIES) {
      wrong('is no list of pages');
    } else if (segment !== found.length) wrong(`segment ${found.length} is missing`);
    else found.push(value);
  }
  return sequences;
}

/** As many whole groups, up to `groupCount`, as the segments hold without a gap. */
function readTable(segments: readonly Uint8Array[], streamCount: number, groupCount: number): BlockTable {
  const table = new BlockTable(streamCount);
  let entryCount = 0;
  for (const [segment, bytes] of segments.entries()) {
    if (entryCount !== segment * TABLE_SEGMENT_ENTRIES) break;
    table.loadSegment(segment, bytes);
    entryCount += bytes.length / 4;
  }
  table.loaded(Math.min(groupCount, Math.floor(entryCount / streamCount)));
  return table;
}

/** The KV room's own record. */
export function checkKvState(meta: MetaReader, report: Report): void {
  try {
    const value = meta.get(metaNamespaces.kvState, stateKey);
    if (value !== undefined) decodeState(value);
  } catch (error) {
    report({ kind: 'metadata', text: `KV state: ${(error as Error).message}`, lost: [] });
  }
}
