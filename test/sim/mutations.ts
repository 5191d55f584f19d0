/**
 * Bugs to plant, so that one can see that they are found: each breaks one rule that the drive's promises rest on. They wrap
 * the stores and the open drive; nothing of them is in the drive itself.
 */
import { assert as invariant } from '../../daemon/base/assert.ts';
import { Flash, type OobEntry, wholeEntry } from '../../daemon/ftl/flash.ts';
import { BlockDevice } from '../../daemon/ftl/block-namespace.ts';
import { Checkpointer } from '../../daemon/ftl/checkpoint.ts';
import { StagingFile } from '../../daemon/ftl/staging-log.ts';
import { SequenceStore } from '../../daemon/kv/kv-store.ts';
import { KvRoom } from '../../daemon/kv/room.ts';
import { decodeStaged } from '../../daemon/kv/staged-records.ts';
import { stagingOwners } from '../../daemon/ftl/contract.ts';
import type { ComposedDrive } from './composed-drive.ts';
import type { Machine } from './machine.ts';
import type { HistoryOptions } from './options.ts';
import type { SimStores } from './stores.ts';

export interface Mutation {
  readonly what: string;
  /** Histories that can show it. */
  readonly suits?: (options: HistoryOptions) => boolean;
  /** Of each start. */
  readonly stores?: (stores: SimStores, machine: Machine) => void;
  /** Once a drive is open. */
  readonly drive?: (drive: ComposedDrive) => void;
  /** Of the process, until what is returned is called. */
  readonly install?: () => () => void;
}

/** Puts another method in a class's place. */
function replaced<T extends object, K extends keyof T>(
  prototype: T,
  name: K,
  method: (original: T[K]) => T[K],
): () => void {
  const original = prototype[name];
  prototype[name] = method(original);
  return () => void (prototype[name] = original);
}

const formats = ({ work }: HistoryOptions): boolean => work.format > 0;
/** Superblocks are erased and opened again all the time. */
const rewrites = ({ work, geometry, lbaSpan, stepsMax }: HistoryOptions): boolean =>
  work.format === 0 && work.blockWrite > 0 && geometry.pageSizeBytes === 4096 && lbaSpan >= 48 && stepsMax >= 60;

export const mutations = {
  mediaSync: {
    what: 'a sync of the media that syncs nothing',
    stores: ({ media }, machine) => {
      media.sync = () => machine.finish('sync');
    },
  },
  stagingSync: {
    what: 'a sync of the staging log that syncs nothing',
    stores: ({ staging }, machine) => {
      const create = staging.create.bind(staging);
      staging.create = (number) => {
        const segment = create(number);
        segment.sync = () => machine.finish('sync');
        return segment;
      };
    },
  },
  commitBeforeSync: {
    what: 'a transaction that is made while media and log are still being synced',
    stores: ({ media }) => {
      const sync = media.sync.bind(media);
      media.sync = () => {
        sync().catch(() => undefined);
        return Promise.resolve();
      };
    },
  },
  commitUnseen: {
    what: 'a transaction that is said to be on disk before it is',
    stores: ({ meta }) => {
      const commit = meta.commit.bind(meta);
      meta.commit = (changes) => {
        commit(changes).catch(() => undefined);
        return Promise.resolve();
      };
    },
  },
  earlyErase: {
    what: 'a superblock that is erased before a transaction covers what took its place',
    suits: rewrites,
    drive: ({ ftl }) => {
      const { superblocks, array } = ftl.flash;
      // Opened in turn: what was used lately is the last to be opened again where wear is levelled.
      array.blocks.wearOf = () => 0;
      const never = new Proxy(superblocks.emptySince, { get: () => 0, set: () => true });
      Object.defineProperty(superblocks, 'emptySince', { value: never });
    },
  },
  earlyNumber: {
    what: 'a number of a KV page that is given out again before a transaction covers its release',
    drive: ({ ftl: { kv } }) => {
      const release = kv.release.bind(kv);
      kv.release = (lpn) => {
        release(lpn);
        kv.checkpointed(Number.MAX_SAFE_INTEGER);
      };
    },
  },
  truncateUnrecorded: {
    what: 'a truncate without a record in the log',
    drive: ({ ftl: { durability, operations } }) => {
      const { log } = durability;
      const append = log.append.bind(log);
      log.append = (owner, payload) => {
        const isTruncate = owner === stagingOwners.kv && decodeStaged(payload).kind === 'truncate';
        return isTruncate ? operations.next() : append(owner, payload);
      };
    },
  },
  sameGeneration: {
    what: 'a truncate that begins no generation',
    install: () =>
      replaced(
        KvRoom.prototype,
        'markTruncated',
        (original) =>
          function (this: KvRoom, sequence, layer, operation) {
            const { generation } = layer;
            original.call(this, sequence, layer, operation);
            layer.generation = generation;
          },
      ),
  },
  tagUnchecked: {
    what: 'an entry that counts whatever opening of its superblock it was written in',
    suits: rewrites,
    install: () =>
      replaced(
        Flash.prototype,
        'checkedEntry',
        () =>
          function (this: Flash, _ppn: number, oob: Uint8Array, slot: number): OobEntry | undefined {
            return wholeEntry(oob, slot);
          },
      ),
  },
  fuaUnsynced: {
    what: 'FUA that waits for nothing',
    drive: ({ ftl: { durability } }) => {
      durability.syncStaging = () => Promise.resolve();
    },
  },
  flushJoins: {
    what: 'a Flush that is answered by a checkpoint that began before it',
    drive: ({ ftl: { durability } }) => {
      const flush = durability.flush.bind(durability);
      let running: Promise<void> | undefined;
      durability.flush = () => (running ??= flush().finally(() => (running = undefined)));
    },
  },
  logCutEarly: {
    what: 'a segment of the log that is removed before a transaction covers it',
    install: () =>
      replaced(
        StagingFile.prototype,
        'rotate',
        (original) =>
          function (this: StagingFile) {
            original.call(this);
            this.removeBefore(this.segmentNumber);
          },
      ),
  },
  nameUnsynced: {
    what: 'a new file of the log whose folder is not synced',
    stores: ({ staging }) => {
      staging.namesSynced = () => undefined;
    },
  },
  openingUnwaited: {
    what: 'a drive that works before the checkpoint that ends its recovery is durable',
    install: () =>
      replaced(
        Checkpointer.prototype,
        'special',
        (original) =>
          async function (this: Checkpointer, kind) {
            const made = original.call(this, kind);
            if (kind === 'closing') await made;
            else made.catch(() => undefined);
          },
      ),
  },
  heldForgotten: {
    what: 'a checkpoint after recovery that forgets what is only in the log',
    install: () => replaced(BlockDevice.prototype, 'holdStaged', () => () => undefined),
  },
  deallocateUnrecorded: {
    what: 'a deallocation without a record in the log',
    install: () =>
      replaced(
        StagingFile.prototype,
        'append',
        (original) =>
          function (this: StagingFile, kind, payload, operation) {
            return kind === 'deallocate'
              ? original.call(this, kind, payload.fill(0), operation)
              : original.call(this, kind, payload, operation);
          },
      ),
  },
  tailsUnstaged: {
    what: 'a new segment of the log that tails which were staged before are missing in',
    install: () =>
      replaced(
        SequenceStore.prototype,
        'checkpoint',
        (original) =>
          function (this: SequenceStore, sink) {
            original.call(this, { ...sink, restage: false });
          },
      ),
  },
  formatUnflushed: {
    what: 'a format that is complete before it is durable',
    suits: formats,
    drive: ({ kv, ftl: { durability } }) => {
      const clear = kv.clear.bind(kv);
      const flush = durability.flush.bind(durability);
      let isFormatting = false;
      kv.clear = async () => {
        await clear();
        isFormatting = true;
      };
      durability.flush = () => {
        const isSkipped = isFormatting;
        isFormatting = false;
        return isSkipped ? Promise.resolve() : flush();
      };
    },
  },
  eraseShallow: {
    what: 'an erase of user data that leaves what lies in free superblocks',
    suits: formats,
    drive: ({ ftl: { flash, userData } }) => {
      const { superblocks } = flash;
      const pool = superblocks.pool.bind(superblocks);
      const erase = userData.erase.bind(userData);
      userData.erase = async (names) => {
        superblocks.pool = (superblock) => pool(superblock) ?? 'kv';
        await erase(names).finally(() => (superblocks.pool = pool));
      };
    },
  },
  pinsIgnored: {
    what: 'a superblock that is erased while somebody reads it',
    drive: ({ ftl }) => {
      const { superblocks } = ftl.flash;
      const pinCount = superblocks.pinCount.bind(superblocks);
      superblocks.pinCount = (superblock) => (superblocks.isEmpty(superblock) ? 0 : pinCount(superblock));
    },
  },
} as const satisfies Record<string, Mutation>;

export type MutationName = keyof typeof mutations;

export function mutationNamed(name: string): Mutation {
  invariant(Object.hasOwn(mutations, name), `a bug named ${name}; there are ${Object.keys(mutations).join(', ')}`);
  return mutations[name as MutationName];
}
