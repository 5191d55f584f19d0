import { DriveError } from '../base/errors.ts';
import { UNMAPPED } from '../ftl/segmented-map.ts';
import type { SequenceShape } from '../kv/contract.ts';
import { channelOf, superblockOf, unitOf } from '../nand/geometry.ts';
import type { DriveImage, ImageSequence } from './image.ts';

export interface LayerInspection {
  readonly layer: number;
  readonly generation: number;
  readonly tokenCount: number;
  /** In flash: whole groups. */
  readonly groupCount: number;
  readonly pageCount: number;
  /** Tokens of no whole group: in the staging log, or rows of a page that a truncate cut. */
  readonly tailTokenCount: number;
  /** Runs of pages that lie side by side on the media, over all streams: fewer are read faster. */
  readonly runCount: number;
  readonly superblockCount: number;
  /** [channel] -> pages. */
  readonly pagesPerChannel: readonly number[];
}

export interface SequenceInspection {
  readonly id: bigint;
  readonly parentId: bigint;
  readonly owner: bigint;
  readonly label: string;
  readonly leaseSeconds: number;
  readonly shape: SequenceShape;
  readonly layers: readonly LayerInspection[];
}

/** One entry of a layer's block table. */
export interface GroupPlace {
  readonly group: number;
  readonly head: number;
  readonly part: 'K' | 'V';
  /** Of the KV namespace. */
  readonly logicalPage: number;
  /** undefined: the map has none, which is damage. */
  readonly page: number | undefined;
}

/** A sequence as the next start would find it. DriveError unknownSequence. */
export function inspectSequence(image: DriveImage, id: bigint): SequenceInspection {
  const sequence = sequenceOf(image, id);
  const { owner, label, leaseSeconds, shape } = sequence.request;
  const layers = sequence.layers.map((_, layer) => inspectLayer(image, sequence, layer));
  return { id, parentId: sequence.parentId, owner, label, leaseSeconds, shape, layers };
}

function sequenceOf({ sequences }: DriveImage, id: bigint): ImageSequence {
  const sequence = sequences.get(id);
  if (sequence !== undefined) return sequence;
  const known = [...sequences.keys()].slice(0, KNOWN_SHOWN).join(', ');
  const rest = sequences.size > KNOWN_SHOWN ? `, and ${sequences.size - KNOWN_SHOWN} more` : '';
  throw new DriveError('unknownSequence', `sequence ${id}; the drive has ${known === '' ? 'none' : known + rest}`);
}

const KNOWN_SHOWN = 12;

function inspectLayer(image: DriveImage, { layers, request }: ImageSequence, layer: number): LayerInspection {
  const { geometry, kvMap } = image;
  const { table, generation, length } = layers[layer]!;
  const superblocks = new Set<number>();
  const pagesPerChannel = new Array<number>(geometry.channelCount).fill(0);
  let runCount = 0;
  for (let stream = 0; stream < table.streamCount; stream++) {
    let expected: number | undefined;
    for (let group = 0; group < table.groupCount; group++) {
      const page = kvMap.get(table.page(group, stream));
      if (page !== expected) runCount++;
      expected = page + 1;
      if (page === UNMAPPED) continue;
      superblocks.add(superblockOf(geometry, page));
      pagesPerChannel[channelOf(geometry, unitOf(geometry, page))]!++;
    }
  }
  const { groupCount, pageCount } = table;
  return {
    layer,
    generation,
    tokenCount: length,
    groupCount,
    pageCount,
    tailTokenCount: length - groupCount * request.shape.groupTokens,
    runCount,
    superblockCount: superblocks.size,
    pagesPerChannel,
  };
}

/** The block table of a layer, group by group. DriveError unknownSequence, layerRange. */
export function inspectBlockTable(image: DriveImage, id: bigint, layer: number): GroupPlace[] {
  const { layers } = sequenceOf(image, id);
  const found = layers[layer];
  if (found === undefined) throw new DriveError('layerRange', `layer ${layer}; allowed: 0 to ${layers.length - 1}`);
  const { table } = found;
  const places: GroupPlace[] = [];
  for (let group = 0; group < table.groupCount; group++) {
    for (let stream = 0; stream < table.streamCount; stream++) {
      const logicalPage = table.page(group, stream);
      const page = image.kvMap.entries[logicalPage];
      const part = stream % 2 === 0 ? 'K' : 'V';
      places.push({ group, head: stream >> 1, part, logicalPage, page: page === UNMAPPED ? undefined : page });
    }
  }
  return places;
}
