/** What `checkImage` finds, as a table: name and meaning. */
export const findingKinds = {
  file: 'a file is missing, cut short, of another drive, or its header is damaged',
  metadata: 'a metadata record is damaged or says what cannot be',
  stagingLog: 'the staging log lacks a record that counts, or a record says what cannot be',
  superblockHeader: 'the header of a superblock is damaged',
  map: 'a map names a place that cannot be: outside of the media, of the other namespace, or with two owners',
  entry: 'the out-of-band entry of a page in use is damaged, or of another owner than the map says',
  data: 'the bytes of a page in use fail their checksum',
  unreadable: 'the disk refuses to read a page in use',
  sequence: 'the record of a sequence or its block table says what cannot be',
  tag: 'a page that a block table names was programmed for other tokens',
  tokens: 'tokens that were durable are nowhere',
  leak: 'a page is in use and nobody holds it',
  opening: 'a start would refuse the drive',
} as const;
export type FindingKind = keyof typeof findingKinds;

/** What of the users' data is gone. */
export type Loss =
  | { readonly kind: 'blocks'; readonly lba: number; readonly lbaCount: number }
  | {
      readonly kind: 'tokens';
      readonly sequenceId: bigint;
      readonly layer: number;
      readonly firstToken: number;
      readonly tokenCount: number;
    }
  | { readonly kind: 'sequence'; readonly sequenceId: bigint }
  /** Nobody can say what. */
  | { readonly kind: 'unknown' };

export interface Finding {
  readonly kind: FindingKind;
  /** What is wrong with which part: names the place, what was found and what must be there. */
  readonly text: string;
  readonly lost: readonly Loss[];
}

export type Report = (finding: Finding) => void;

export const blocks = (lba: number, lbaCount: number): Loss => ({ kind: 'blocks', lba, lbaCount });
export const unknown: Loss = { kind: 'unknown' };
