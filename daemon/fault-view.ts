import type { FaultPlace, FaultRequest, FaultStatus } from '../spec/admin-api.ts';
import { DriveError } from './base/errors.ts';
import type { FaultSnapshot } from './ftl/fault-board.ts';
import type { Ftl } from './ftl/ftl.ts';
import { UNMAPPED } from './ftl/segmented-map.ts';
import type { SequenceStore } from './kv/kv-store.ts';
import type { FailurePlace } from './nand/injected-failures.ts';
import type { RunningDrive } from './rooms.ts';

const APPLY_WAIT_MS = 500;
const PLACES =
  'page; superblock, unit or both; lba; sequence with layer, head, part and group; nothing for what comes next';

/** Where a fault strikes: a physical place, of a block's page with its slot; undefined: whatever comes next. */
interface ResolvedPlace {
  readonly place: FailurePlace | undefined;
  readonly slot?: number;
}

/** What the control plane may do about faults. */
export class FaultView {
  readonly #drive: RunningDrive;
  /** [fault] -> as it was asked for. */
  readonly #requests = new Map<number, FaultRequest>();

  constructor(drive: RunningDrive) {
    this.#drive = drive;
  }

  list(): FaultStatus[] {
    return this.#drive
      .room('ftl')
      .faults.list()
      .map((snapshot) => this.#status(snapshot));
  }

  /**
   * Resolves once bit errors are in the cells, or after a moment if somebody goes on reading there. DriveError
   * faultsNotAllowed, invalidField, unknownSequence, layerRange.
   */
  async add(request: FaultRequest): Promise<FaultStatus> {
    this.#assertAllowed();
    const ftl = this.#drive.room('ftl');
    const { kind, where = {}, count = 1, bits } = request;
    if (kind !== 'bit-errors' && bits !== undefined) throw wrong(`bits of a ${kind}`, 'bits for bit-errors only');
    const { place, slot } = resolvePlace(where, ftl, this.#drive.room('sequences'));
    if (kind === 'erase-failure' && place?.ppn !== undefined)
      throw wrong('an erase of a page', 'superblock, unit or both; nothing');
    const { id } = ftl.faults.add({ kind, place, slot, count, bits: kind === 'bit-errors' ? (bits ?? 1) : 0 });
    this.#requests.set(id, request);
    this.#drive.modules.logger.warn({ fault: id, ...request }, 'a fault is injected');
    await this.#applied(id);
    const snapshot = ftl.faults.list().find((fault) => fault.id === id);
    if (snapshot === undefined) throw new DriveError('unknownFault', `fault ${id} was removed at once`);
    return this.#status(snapshot);
  }

  async #applied(id: number): Promise<void> {
    const { clock } = this.#drive.modules;
    await new Promise<void>((resolve) => {
      const timer = clock.setTimer(APPLY_WAIT_MS, resolve);
      void this.#drive
        .room('ftl')
        .faults.applied(id)
        .then(() => {
          timer.cancel();
          resolve();
        });
    });
  }

  /** DriveError faultsNotAllowed, unknownFault. */
  async remove(id: number): Promise<void> {
    this.#assertAllowed();
    if (!(await this.#drive.room('ftl').faults.remove(id))) throw new DriveError('unknownFault', `fault ${id}`);
    this.#requests.delete(id);
  }

  #assertAllowed(): void {
    if (this.#drive.options.config.allowFaults) return;
    throw new DriveError('faultsNotAllowed', 'start the daemon with --allow-faults');
  }

  #status({ id, kind, count, bits, remainingCount, pages }: FaultSnapshot): FaultStatus {
    const { where } = this.#requests.get(id) ?? {};
    return {
      id: String(id),
      kind,
      ...(where === undefined ? {} : { where }),
      count,
      bits,
      remainingCount,
      pages: pages.map(({ ppn, state }) => ({ page: ppn, state })),
    };
  }
}

const wrong = (what: string, allowed: string): DriveError =>
  new DriveError('invalidField', `${what}; allowed: ${allowed}`);

function resolvePlace(where: FaultPlace, ftl: Ftl, sequences: SequenceStore): ResolvedPlace {
  const given = Object.keys(where).sort().join(', ');
  switch (given) {
    case '':
      return { place: undefined };
    case 'page':
      return { place: { ppn: where.page } };
    case 'superblock':
    case 'unit':
    case 'superblock, unit':
      return { place: { superblock: where.superblock, unit: where.unit } };
    case 'lba':
      return placeOfLba(where.lba as number, ftl);
    case 'group, head, layer, part, sequence':
      return { place: { ppn: pageOfGroup(where as Required<FaultPlace>, ftl, sequences) } };
    default:
      throw wrong(`where has ${given}`, PLACES);
  }
}

function placeOfLba(lba: number, { blocks, geometry }: Ftl): ResolvedPlace {
  if (lba >= blocks.lbaCount) throw wrong(`LBA ${lba}`, `0 to ${blocks.lbaCount - 1}`);
  const slot = blocks.map.get(lba);
  if (slot === UNMAPPED)
    throw wrong(`LBA ${lba} is in no flash page`, 'LBAs that were written and left the write cache');
  const { slotsPerPage } = geometry;
  return { place: { ppn: Math.floor(slot / slotsPerPage) }, slot: slot % slotsPerPage };
}

function pageOfGroup(where: Required<FaultPlace>, { kv }: Ftl, sequences: SequenceStore): number {
  const { sequence, layer, head, part, group } = where;
  const view = sequences.view(BigInt(sequence), layer);
  try {
    const groupCount = view.flashTokenCount / view.shape.groupTokens;
    if (group >= groupCount)
      throw wrong(`group ${group}`, `groups that are in flash, of which there are ${groupCount}`);
    if (head >= view.shape.kvHeadCount) throw wrong(`head ${head}`, `0 to ${view.shape.kvHeadCount - 1}`);
    return kv.map.get(view.page(group, head, part === 'K' ? 0 : 1));
  } finally {
    view.release();
  }
}
