import { limits, rowSizeBytes } from '../spec/index.ts';
import type { ElementType } from '../spec/index.ts';
import { bytesOf, type RowArray, rowArray, rowView } from './convert.ts';
import type { RegionPlace, Transfers } from './transfers.ts';

/** Arrays for the keys and values of an append, in memory that the drive shares: filled there, they are never copied. */
export interface AppendRows {
  /** Rows of all KV heads, as [token][head][dimension] unless the append says otherwise. */
  readonly keys: RowArray;
  readonly values: RowArray;
  /**
   * Gives the memory back, for others to use: the arrays must not be touched any more, and appends of them must have ended.
   * Without it the memory is taken until the client is closed.
   */
  release(): void;
}

export interface RowShape {
  readonly rowCount: number;
  readonly headDimK: number;
  readonly headDimV: number;
  readonly elementTypeK: ElementType;
  readonly elementTypeV: ElementType;
}

/** Arrays of any type begin at multiples of it. */
const ALIGNMENT_BYTES = 64;

/**
 * Arrays for rows: in a memory region where the client shares memory with the drive and can map it, else in memory of their
 * own. DriveLimitError if there is no room in the regions.
 */
export async function allocateRows(shape: RowShape, transfers: Transfers): Promise<AppendRows> {
  const { rowCount, headDimK, headDimV, elementTypeK, elementTypeV } = shape;
  const keyBytes = rowCount * rowSizeBytes(elementTypeK, headDimK);
  const valuesAt = Math.ceil(keyBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
  const { regions } = transfers;
  const slice = await regions?.allocate(valuesAt + rowCount * rowSizeBytes(elementTypeV, headDimV));
  const memory = slice?.region.memory();
  if (regions === undefined || slice === undefined || memory === undefined) {
    if (slice !== undefined) regions?.release(slice);
    const keys = rowArray(elementTypeK, rowCount, headDimK);
    return { keys, values: rowArray(elementTypeV, rowCount, headDimV), release: () => undefined };
  }
  let isHeld = true;
  return {
    keys: rowView(elementTypeK, memory, slice.offset, rowCount, headDimK),
    values: rowView(elementTypeV, memory, slice.offset + valuesAt, rowCount, headDimV),
    release: () => {
      if (isHeld) regions.release(slice);
      isHeld = false;
    },
  };
}

/** Where rows of an append are in a region, if a command can name them there. */
export interface RowPlace {
  /** Of the first K row. */
  readonly keys: RegionPlace;
  /** From there to the first V row. */
  readonly distanceBytes: number;
}

/** Undefined: the rows are not in one region, the keys before the values, and have to be copied. */
export function placeOf(keys: RowArray, values: RowArray, transfers: Transfers): RowPlace | undefined {
  const [first, second] = [keys, values].map((rows) => transfers.regions?.find(bytesOf(rows)));
  if (first === undefined || second === undefined || first.region !== second.region) return undefined;
  const distanceBytes = second.offset - first.offset;
  const isNameable = distanceBytes >= keys.byteLength && distanceBytes <= limits.appendDistanceBytesMax;
  return isNameable ? { keys: first, distanceBytes } : undefined;
}
