/** Device time of a drive. Rates may be Infinity: what moves at that rate takes no time and never waits. */
export interface TimingProfile {
  readonly flash: FlashTiming;
  readonly channel: ChannelTiming;
  readonly controller: ControllerTiming;
  readonly writeBuffer: WriteBufferProfile;
  readonly link: LinkTiming;
  readonly compute: ComputeTiming;
  /** Numbers that no source states, and how they were reckoned. */
  readonly estimates: readonly string[];
  /** What the sources say that a drive with these numbers does; `npm run -s bench -- device` compares. */
  readonly published: readonly PublishedFigure[];
}

/** Bits a cell holds; as many types of pages differ in their read and program time. */
export const cellTypes = { slc: 1, mlc: 2, tlc: 3, qlc: 4 } as const;
export type CellType = keyof typeof cellTypes;

/**
 * What the planes of a die can do at once.
 * - `single`: nothing; the die does one operation at a time.
 * - `together`: the same operation on the same page of different planes (multi-plane commands).
 * - `independent`: anything, as if each plane were a die.
 */
export type PlaneMode = 'single' | 'together' | 'independent';

export interface FlashTiming {
  readonly cell: CellType;
  /** tR by page type: page p of a block is of type p modulo their number. */
  readonly readNs: readonly number[];
  /** Reads of at most so many bytes of a page, where they are faster. */
  readonly shortRead?: { readonly bytesMax: number; readonly readNs: readonly number[] };
  /** tPROG by page type. */
  readonly programNs: readonly number[];
  /** tBERS. */
  readonly eraseNs: number;
  readonly planes: PlaneMode;
  /** The cells read the next page while the one before it leaves the page register. */
  readonly cacheRead: boolean;
  /** The page register takes the next page while the cells program the one before it. */
  readonly cacheProgram: boolean;
  /** Time to suspend a program or erase for a read; undefined: reads wait. */
  readonly suspendNs: number | undefined;
}

/** The bus that the dies of a channel share. */
export interface ChannelTiming {
  readonly bytesPerSecond: number;
  /** Command and address cycles of an operation. */
  readonly commandNs: number;
}

/** Firmware's time on a command before its first operation. Commands don't wait for each other here. */
export interface ControllerTiming {
  readonly readNs: number;
  /** Reads of at most so many bytes, where they are faster. */
  readonly shortRead?: { readonly bytesMax: number; readonly ns: number };
  readonly writeNs: number;
  /** Added for each 4 KiB of a write, begun ones too. */
  readonly writeBlockNs: number;
  readonly attendNs: number;
  /** Everything else. */
  readonly otherNs: number;
}

/** Pages between the link and the cells. */
export interface WriteBufferProfile {
  /** Pages per plane; 0: a write completes when its page is programmed. */
  readonly pagesPerPlane: number;
  /** It survives a power cut, so a flush need not wait until it is empty. */
  readonly isProtected: boolean;
}

/** The link to the host; both directions at once. */
export interface LinkTiming {
  readonly bytesPerSecond: number;
  /** From the end of a command's work until the host sees its completion. */
  readonly completionNs: number;
}

/** The attention engine. Pages stream into whichever unit has less to do. */
export interface ComputeTiming {
  readonly unitCount: number;
  /** Of one unit: keys and values that it takes. */
  readonly bytesPerSecond: number;
  /** Of one unit: a multiplication and an addition are two. */
  readonly flopsPerSecond: number;
  /** For each KV head of each entry, once: what does not stream (softmax, normalisation). */
  readonly headNs: number;
}

export type Figure =
  | 'sequentialRead'
  | 'sequentialWrite'
  | 'randomRead'
  | 'randomReadQd1'
  | 'randomWriteQd1'
  | 'attention';

export interface PublishedFigure {
  readonly figure: Figure;
  /** Bytes per second; random reads and writes: 4 KiB commands per second. */
  readonly value: number;
  readonly source: string;
}
