/** Bugs to plant into an open drive. */
import type { ComposedDrive } from '../../sim/composed-drive.ts';

export function plant(bug: string, { ftl, kv }: ComposedDrive): void {
  switch (bug) {
    case 'readsOtherBlock': {
      const read = ftl.blocks.read.bind(ftl.blocks);
      ftl.blocks.read = (lba, count, target) => read(lba === 5 && count === 1 ? 6 : lba, count, target);
      return;
    }
    case 'takesGaps': {
      const append = kv.append.bind(kv);
      kv.append = (id, layer, position, ...rest) => {
        const length = kv.inspect(id).lengths[layer] ?? position;
        return append(id, layer, position > length ? length : position, ...rest);
      };
      return;
    }
    case 'shortTruncate': {
      const truncate = kv.truncate.bind(kv);
      kv.truncate = (id, layer, length, job) => {
        const present = kv.inspect(id).lengths[layer ?? 0] ?? 0;
        return truncate(id, layer, layer !== undefined && length < present ? length + 1 : length, job);
      };
      return;
    }
    case 'listsReclaimed': {
      const list = kv.list.bind(kv);
      kv.list = (after, count) => list(after, count + 1).slice(1);
      return;
    }
    default:
      throw new Error(`bug ${bug}: none of these commands`);
  }
}
