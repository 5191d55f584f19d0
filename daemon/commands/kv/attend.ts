import { attendOutputs } from '../../../spec/kv-commands.ts';
import { kvOpcodes } from '../../../spec/opcodes.ts';
import type { AttendCounts, AttendTarget } from '../../attention/contract.ts';
import type { DeviceJob } from '../../timing/device-job.ts';
import { type ArenaScope, withArena } from '../arena-scope.ts';
import type {
  MemoryRegion,
  CommandContext,
  CommandDefinition,
  CommandModules,
  CommandOptions,
  CommandResult,
  ResultSlots,
} from '../contract.ts';
import { settleDurability } from '../durable-completion.ts';
import { ALL_BITS, refuse } from '../fields.ts';
import { type AttendEntryPlan, type AttendPlan, entryError, type Location, parseAttend } from './attend-descriptor.ts';

/** Queries, rows and outputs start at multiples of this in the arena; the contract below wants 4. */
const ALIGNMENT_BYTES = 64;
const SOURCE_ALIGNMENT_BYTES = 4;
const U32_MAX = 0xffff_ffff;

/**
 * Data: attend header, entries, queries. Outputs go to regions or result slots. DW0: tokens attended to in flash, DW1:
 * in the tail buffer, both over all entries, or the device latency in ns, if the header's flags say so. If it fails over
 * an entry, DW0 is the entry's index.
 *
 * Carried keys and values are appended first, entry by entry. If one fails, the command fails and those before it stay
 * appended; sending the command again is safe, since an append of what is there already succeeds.
 */
export const attend = (options: CommandOptions, modules: CommandModules): CommandDefinition => ({
  row: kvOpcodes.attend,
  allowedBits: {},
  namespace: 'one',
  run: (context) => run(context, undefined, options, modules),
});

/** As attend, and CDW10 bytes come back as data: outputs of kind `exchange`, zeros between them. */
export const attendExchange = (options: CommandOptions, modules: CommandModules): CommandDefinition => ({
  row: kvOpcodes.attendExchange,
  allowedBits: { cdw10: ALL_BITS },
  namespace: 'one',
  run: (context) => {
    const { cdw10: exchangeBytes } = context.entry;
    const { transferBytesMax } = options.limits;
    if (exchangeBytes > transferBytesMax)
      throw refuse(`${exchangeBytes} bytes back, allowed: up to ${transferBytesMax}`);
    return run(context, exchangeBytes, options, modules);
  },
});

function run(
  context: CommandContext,
  exchangeBytes: number | undefined,
  { limits }: CommandOptions,
  modules: CommandModules,
): Promise<CommandResult> {
  const { data, association, job } = context;
  return withArena(modules.arena, async (scope) => {
    const { lengthBytes } = data;
    const dataOffset = scope.allocate(lengthBytes);
    const bytes = scope.view(dataOffset, lengthBytes);
    await data.read(bytes);
    const plan = parseAttend(bytes, { limits, kv: association.kv, association, exchangeBytes });
    const slots = claimSlots(plan, association.slots);
    try {
      const command = new AttendCommand(plan, {
        context,
        scope,
        modules,
        slots: association.slots,
        dataOffset,
        exchangeBytes,
      });
      const counts = await command.run();
      if (exchangeBytes !== undefined) await data.write(command.exchange(), scope.detach());
      for (const slot of slots) association.slots.commit(slot);
      return count(plan, counts, modules, job);
    } catch (error) {
      for (const slot of slots) association.slots.abandon(slot);
      throw error;
    }
  });
}

function count(plan: AttendPlan, counts: AttendCounts, { counters }: CommandModules, job: DeviceJob): CommandResult {
  counters.attendCommands++;
  counters.attendEntries += plan.entries.length;
  counters.attendFlashTokens += counts.flashTokenCount;
  counters.attendBufferedTokens += counts.bufferedTokenCount;
  const second = plan.returnsDeviceTime ? job.latencyNs : counts.bufferedTokenCount;
  return { dw0: Math.min(counts.flashTokenCount, U32_MAX), dw1: Math.min(second, U32_MAX) };
}

/** A slot is as large as the entries that write to it reach. All are claimed before any work, or none. */
function claimSlots(plan: AttendPlan, slots: ResultSlots): number[] {
  const sizes = new Map<number, number>();
  for (const { output } of plan.entries) {
    if (output.kind !== attendOutputs.slot) continue;
    sizes.set(output.key, Math.max(sizes.get(output.key) ?? 0, output.offset + output.lengthBytes));
  }
  const claimed: number[] = [];
  try {
    for (const [slot, sizeBytes] of sizes) {
      slots.claim(slot, sizeBytes);
      claimed.push(slot);
    }
  } catch (error) {
    for (const slot of claimed) slots.abandon(slot);
    throw error;
  }
  return claimed;
}

interface AttendWork {
  readonly context: CommandContext;
  readonly scope: ArenaScope;
  readonly modules: CommandModules;
  readonly slots: ResultSlots;
  readonly dataOffset: number;
  readonly exchangeBytes: number | undefined;
}

/** Arena offsets of one entry. */
interface Placement {
  query: number;
  append: number;
  output: number;
}

/** One checked command on its way: bring the inputs into the arena, append, attend, deliver. */
class AttendCommand {
  readonly #plan: AttendPlan;
  readonly #work: AttendWork;
  readonly #placements: Placement[] = [];
  #exchangeOffset = 0;

  constructor(plan: AttendPlan, work: AttendWork) {
    this.#plan = plan;
    this.#work = work;
    this.#place();
  }

  async run(): Promise<AttendCounts> {
    const { entries, options } = this.#plan;
    await this.#fetch();
    this.#bookInputs();
    if (entries.some(({ append }) => append !== undefined)) await this.#append();
    const targets = entries.map((entry, index) => this.#target(entry, index));
    const attended = this.#work.modules.attention.attend(options, targets, this.#work.context.job);
    // Before anything waits: device time does not know when the workers are done.
    this.#bookOutputs();
    const counts = await attended;
    await this.#deliver();
    return counts;
  }

  /** In device time: the command's data, and what of it lies in regions. */
  #bookInputs(): void {
    const { job, data } = this.#work.context;
    let hostBytes = data.lengthBytes;
    for (const { query, append } of this.#plan.entries) {
      if (query.region !== undefined) hostBytes += query.lengthBytes;
      if (append?.region !== undefined) hostBytes += append.lengthBytes;
    }
    job.firmware('attend', hostBytes);
    job.hostToDevice(hostBytes);
  }

  /** Outputs to slots stay in the drive until *attend result*. */
  #bookOutputs(): void {
    const { job } = this.#work.context;
    let hostBytes = 0;
    for (const { output } of this.#plan.entries) {
      if (output.kind !== attendOutputs.slot) hostBytes += output.lengthBytes;
    }
    job.join();
    job.deviceToHost(hostBytes);
  }

  /** What *attend exchange* returns. */
  exchange(): Uint8Array {
    const { scope, exchangeBytes } = this.#work;
    return scope.view(this.#exchangeOffset, exchangeBytes ?? 0);
  }

  /** Where a location's bytes can be used in place, that is their offset; otherwise undefined. */
  #inPlace({ region, offset }: Location): number | undefined {
    return region === undefined && offset % SOURCE_ALIGNMENT_BYTES === 0 ? this.#work.dataOffset + offset : undefined;
  }

  #placeOutput({ output }: AttendEntryPlan): number | undefined {
    const usable = output.kind === attendOutputs.exchange && output.offset % SOURCE_ALIGNMENT_BYTES === 0;
    return usable ? this.#exchangeOffset + output.offset : undefined;
  }

  /** One allocation for everything that isn't in place already. */
  #place(): void {
    const { scope, exchangeBytes } = this.#work;
    if (exchangeBytes !== undefined) {
      this.#exchangeOffset = scope.allocate(exchangeBytes);
      // Gaps between outputs must not show what other commands left in the arena.
      scope.view(this.#exchangeOffset, exchangeBytes).fill(0);
    }
    let sizeBytes = 0;
    const take = (lengthBytes: number): number => {
      const at = sizeBytes;
      sizeBytes += Math.ceil(lengthBytes / ALIGNMENT_BYTES) * ALIGNMENT_BYTES;
      return at;
    };
    const relative: (keyof Placement)[][] = [];
    for (const entry of this.#plan.entries) {
      const { query, append, output } = entry;
      const moved: (keyof Placement)[] = [];
      const place = (key: keyof Placement, at: number | undefined, lengthBytes: number): number => {
        if (at !== undefined) return at;
        moved.push(key);
        return take(lengthBytes);
      };
      this.#placements.push({
        query: place('query', this.#inPlace(query), query.lengthBytes),
        append: append === undefined ? 0 : place('append', this.#inPlace(append), append.lengthBytes),
        output: place('output', this.#placeOutput(entry), output.lengthBytes),
      });
      relative.push(moved);
    }
    if (sizeBytes === 0) return;
    const base = scope.allocate(sizeBytes);
    this.#placements.forEach((placement, index) => {
      for (const key of relative[index] as (keyof Placement)[]) placement[key] += base;
    });
  }

  async #fetch(): Promise<void> {
    const { entries } = this.#plan;
    for (let index = 0; index < entries.length; index++) {
      const { query, append } = entries[index] as AttendEntryPlan;
      const placement = this.#placements[index] as Placement;
      try {
        await this.#fetchOne(query, placement.query);
        if (append !== undefined) await this.#fetchOne(append, placement.append);
      } catch (error) {
        throw entryError(index, error);
      }
    }
  }

  #fetchOne(source: Location, target: number): Promise<void> | void {
    if (this.#inPlace(source) !== undefined) return;
    const { scope, dataOffset } = this.#work;
    const view = scope.view(target, source.lengthBytes);
    if (source.region !== undefined) return source.region.read(source.offset, view);
    view.set(scope.view(dataOffset + source.offset, source.lengthBytes));
  }

  /** All appends come first, in order; every entry then sees the lengths after all of them. */
  async #append(): Promise<void> {
    const { context, modules } = this.#work;
    const { counters, durability } = modules;
    const { kv } = context.association;
    const elementType = this.#plan.appendType;
    for (const [index, { sequenceId, layer, append }] of this.#plan.entries.entries()) {
      if (append === undefined) continue;
      const { append: offset } = this.#placements[index] as Placement;
      const source = { offset, elementType, headMajor: false };
      try {
        await kv.append(sequenceId, layer, append.position, append.tokenCount, source, this.#work.context.job);
        counters.kvAppendedBytes += append.lengthBytes;
      } catch (error) {
        throw entryError(index, error);
      }
    }
    await settleDurability(context, durability);
  }

  #target(entry: AttendEntryPlan, index: number): AttendTarget {
    const { query, output } = this.#placements[index] as Placement;
    return {
      sequenceId: entry.sequenceId,
      layer: entry.layer,
      queryHeadsPerKvHead: entry.queryHeadsPerKvHead,
      firstQueryHead: entry.firstQueryHead,
      queryHeadCount: entry.queryHeadCount,
      queryTokenCount: entry.queryTokenCount,
      queryPosition: entry.queryPosition,
      tokenStart: entry.tokenStart,
      tokenEnd: entry.tokenEnd,
      queryOffset: query,
      outputOffset: output,
    };
  }

  async #deliver(): Promise<void> {
    const { entries, options } = this.#plan;
    const { scope, slots, modules } = this.#work;
    for (let index = 0; index < entries.length; index++) {
      const entry = entries[index] as AttendEntryPlan;
      const { output } = entry;
      const at = (this.#placements[index] as Placement).output;
      const bytes = scope.view(at, output.lengthBytes);
      if (options.statistics) clearPadding(bytes, entry);
      if (output.region !== undefined) await this.#deliverToRegion(index, output.region, output.offset, bytes);
      else if (output.kind === attendOutputs.slot) {
        slots.write(output.key, output.offset, bytes);
        modules.counters.slotWrittenBytes += bytes.length;
      } else if (this.#placeOutput(entry) === undefined) {
        scope.view(this.#exchangeOffset + output.offset, bytes.length).set(bytes);
      }
    }
  }

  async #deliverToRegion(index: number, region: MemoryRegion, offset: number, bytes: Uint8Array): Promise<void> {
    try {
      await region.write(offset, bytes);
    } catch (error) {
      throw entryError(index, error);
    }
  }
}

/** Zeroes what lies between outputs and their statistics: up to 3 bytes that the engine doesn't write. */
function clearPadding(bytes: Uint8Array, { output: { rowBytes } }: AttendEntryPlan): void {
  bytes.fill(0, rowBytes, Math.ceil(rowBytes / 4) * 4);
}
