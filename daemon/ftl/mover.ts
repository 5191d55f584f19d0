import type { DeviceJob } from '../timing/device-job.ts';
import type { Arena } from '../base/arena.ts';
import type { DriveError } from '../base/errors.ts';
import type { Flash, OobEntry } from './flash.ts';
import type { PageWriter } from './page-writer.ts';

/** The maps, as garbage collection needs them: who holds a slot, and that it has moved. */
export interface Relocatable {
  /** Whether the entry's owner still has its bytes at `slot`. */
  isCurrent(entry: OobEntry, slot: number): boolean;
  moved(entry: OobEntry, from: number, to: number): void;
}

/** Why pages are moved: to make room, or for the sake of wear. */
export type MoveRole = 'gc' | 'wear';

export interface MoverModules {
  readonly role: MoveRole;
  readonly flash: Flash;
  readonly writer: PageWriter;
  readonly arena: Arena;
  readonly owner: Relocatable;
}

/** What one step of a mover came to. */
export interface MoveStep {
  /** What it cost, in pages read. */
  readonly moves: number;
  /** A page was programmed. */
  readonly isProgrammed: boolean;
  /** Nothing that could be moved is left. */
  readonly isDone: boolean;
}

/**
 * Programs what is valid in a superblock elsewhere, step by step. Between steps, and while a step reads, anything may
 * happen to what is to be moved: each looks at the map again before it programs.
 */
export interface Mover {
  /** Slots read of earlier superblocks that wait for others to fill their page. */
  readonly gatheredSlotCount: number;
  begin(superblock: number): void;
  /**
   * At most `movesMax` pages are read; with `isFillingOnly` it ends with the first page that is programmed. A page that
   * can't be read stays where it is, and `failure` says why. `job`: what it does in device time. DriveError writeFault.
   */
  step(movesMax: number, isFillingOnly: boolean, job: DeviceJob): Promise<MoveStep>;
  /** The first page that could not be read since `begin`. */
  readonly failure: DriveError | undefined;
  /** Programs what is gathered, with padding; false if there is nothing. */
  programGathered(job: DeviceJob): boolean;
}
