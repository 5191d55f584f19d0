/** The smallest KV room there can be: keys, each with one page, which durable records and events bring back. */
import type { Arena } from '../../daemon/base/arena.ts';
import type {
  CheckpointParticipant,
  CheckpointSink,
  KvPages,
  KvPageTag,
  KvRecovery,
  Lpn,
  RecoveredEvent,
  StagingLog,
} from '../../daemon/ftl/contract.ts';
import { stagingOwners } from '../../daemon/ftl/contract.ts';
import type { MetaReader } from '../../daemon/meta/contract.ts';
import { metaNamespaces } from '../../daemon/meta/namespaces.ts';
import { programPage } from './program-page.ts';

interface Holding {
  readonly version: number;
  /** undefined: removed in this version. */
  readonly lpn: number | undefined;
}

/** A page's content: key and version, over and over. */
export function fillPage(target: Uint8Array, key: number, version: number): void {
  const words = new Uint32Array(target.buffer, target.byteOffset, target.length / 4);
  for (let i = 0; i < words.length; i++) words[i] = i % 2 === 0 ? key : version;
}

export class PageKeeper implements KvRecovery, CheckpointParticipant {
  readonly holdings = new Map<number, Holding>();
  readonly #arena: Arena;
  readonly #changed = new Set<number>();
  #pages: KvPages | undefined;
  #log: StagingLog | undefined;
  /** What `recover` was given. */
  events: readonly RecoveredEvent[] = [];

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  get pages(): KvPages {
    if (!this.#pages) throw new Error('not settled');
    return this.#pages;
  }

  // --- Opening

  recover(events: readonly RecoveredEvent[], lpnCount: number, records: MetaReader): Uint16Array {
    this.events = events;
    for (const { key, value } of records.range(metaNamespaces.kvSequences)) {
      this.holdings.set(key[0] as number, value as Holding);
    }
    for (const event of events) {
      if (event.kind === 'page') this.#take(event.tag.group, { version: event.tag.generation, lpn: event.lpn });
      else {
        const [key, version] = new Uint32Array(event.payload.slice().buffer) as unknown as [number, number];
        this.#take(key, { version, lpn: undefined });
      }
    }
    const references = new Uint16Array(lpnCount);
    for (const { lpn } of this.holdings.values()) if (lpn !== undefined) references[lpn] = 1;
    return references;
  }

  #take(key: number, holding: Holding): void {
    if (holding.version <= (this.holdings.get(key)?.version ?? 0)) return;
    this.holdings.set(key, holding);
    this.#changed.add(key);
  }

  settle(pages: KvPages, log: StagingLog): Promise<void> {
    this.#pages = pages;
    this.#log = log;
    return Promise.resolve();
  }

  // --- Checkpoints

  checkpoint(sink: CheckpointSink): void {
    for (const key of this.#changed) sink.put(metaNamespaces.kvSequences, [key], { ...this.holdings.get(key) });
    this.#changed.clear();
    sink.put(metaNamespaces.kvState, ['state'], sink.operation);
  }

  stageBuffered(): void {}

  // --- Work

  async put(key: number, version: number, placement = key): Promise<void> {
    const { pages } = this;
    const reservation = await pages.reserve(1);
    const frame = this.#arena.allocate(pages.pageSizeBytes);
    try {
      const page = this.#arena.view(frame, pages.pageSizeBytes);
      fillPage(page, key, version);
      const tag: KvPageTag = { sequenceId: 1n, generation: version, layer: 0, head: 0, part: 0, group: key };
      const lpn = programPage(pages, reservation, tag, page, { channel: key % pages.channelCount, placement });
      this.#release(key);
      this.holdings.set(key, { version, lpn });
      this.#changed.add(key);
    } finally {
      this.#arena.free(frame);
      reservation.release();
    }
  }

  remove(key: number, version: number): void {
    this.#log?.append(stagingOwners.kv, new Uint8Array(new Uint32Array([key, version]).buffer));
    this.#release(key);
    this.holdings.set(key, { version, lpn: undefined });
    this.#changed.add(key);
  }

  #release(key: number): void {
    const lpn = this.holdings.get(key)?.lpn;
    if (lpn !== undefined) this.pages.release(lpn as Lpn);
  }

  /** The key's version; throws if its page does not hold exactly that. */
  async check(key: number): Promise<number> {
    const holding = this.holdings.get(key);
    if (holding?.lpn === undefined) return holding?.version ?? 0;
    const { pageSizeBytes } = this.pages;
    const frame = this.#arena.allocate(pageSizeBytes);
    try {
      await this.pages.read(holding.lpn as Lpn, frame);
      const expected = new Uint8Array(pageSizeBytes);
      fillPage(expected, key, holding.version);
      if (Buffer.compare(expected, this.#arena.view(frame, pageSizeBytes)) !== 0) {
        throw new Error(`key ${key} does not hold version ${holding.version}`);
      }
    } finally {
      this.#arena.free(frame);
    }
    return holding.version;
  }
}
