import type { FirmwareWork } from '../../spec/device-trace.ts';
import type { TimingProfile } from '../profiles/timing-profile.ts';
import type { DeviceShape } from './device-shape.ts';
import { DieArray } from './die-array.ts';
import { Timeline } from './timeline.ts';
import { WriteBuffer } from './write-buffer.ts';

/** A page leaves its die in pieces of this size, so that the next stage needn't wait for all of it. */
const PIECE_BYTES = 16_384;
const BLOCK_BYTES = 4096;

/** Busy time of each kind of resource in nanoseconds, summed over all of that kind, and how many there are. */
export interface DeviceUsage {
  readonly dies: ResourceUsage;
  readonly channels: ResourceUsage;
  readonly compute: ResourceUsage;
  readonly linkIn: ResourceUsage;
  readonly linkOut: ResourceUsage;
}

export interface ResourceUsage {
  readonly count: number;
  readonly busyNs: number;
}

/**
 * When things happen in a drive of this profile: busy-until times of dies, channels, compute units and link. Operations
 * are booked in the order in which they are asked for, each from the time at which it is ready; what is booked stays.
 * Times are whole nanoseconds. It depends on nothing but what it was asked, so the same questions get the same answers.
 */
export class DeviceModel {
  readonly profile: TimingProfile;
  readonly shape: DeviceShape;
  readonly #dies: DieArray;
  readonly #channels: readonly Timeline[];
  readonly #compute: readonly Timeline[];
  readonly #linkIn = new Timeline();
  readonly #linkOut = new Timeline();
  readonly #buffer: WriteBuffer;
  /** [unit] -> when its page registers are free: for pages on their way out, and in. */
  readonly #outFreeNs: Float64Array;
  readonly #inFreeNs: Float64Array;
  /** End of the last program that was posted. */
  #programsEndNs = 0;
  #jobCount = 0;
  latestArrivalNs = 0;

  constructor(profile: TimingProfile, shape: DeviceShape) {
    this.profile = profile;
    this.shape = shape;
    this.#dies = new DieArray(profile.flash, shape);
    this.#channels = Array.from({ length: shape.channelCount }, () => new Timeline());
    this.#compute = Array.from({ length: profile.compute.unitCount }, () => new Timeline());
    this.#buffer = new WriteBuffer(profile.writeBuffer.pagesPerPlane * this.#dies.unitCount);
    this.#outFreeNs = new Float64Array(this.#dies.unitCount);
    this.#inFreeNs = new Float64Array(this.#dies.unitCount);
  }

  /** A job arrives, no earlier than any before it; returns its number. */
  arrive(nowNs: number): number {
    this.latestArrivalNs = nowNs;
    return ++this.#jobCount;
  }

  firmwareNs(work: FirmwareWork, bytes: number): number {
    const { controller } = this.profile;
    switch (work) {
      case 'other':
        return controller.otherNs;
      case 'read':
        return controller.shortRead !== undefined && bytes <= controller.shortRead.bytesMax
          ? controller.shortRead.ns
          : controller.readNs;
      case 'write':
        return controller.writeNs + controller.writeBlockNs * Math.ceil(bytes / BLOCK_BYTES);
      case 'attend':
        return controller.attendNs;
    }
  }

  // --- Link ---

  hostToDevice(readyNs: number, bytes: number): number {
    return this.#linkIn.reserve(readyNs, transferNs(bytes, this.profile.link.bytesPerSecond));
  }

  deviceToHost(readyNs: number, bytes: number): number {
    return this.#linkOut.reserve(readyNs, transferNs(bytes, this.profile.link.bytesPerSecond));
  }

  // --- Flash ---

  /** Reads `bytes` of a page; returns when they are in the controller. */
  read(readyNs: number, ppn: number, bytes: number, attemptCount: number, job: number): number {
    if (this.#buffer.holds(ppn, readyNs)) return readyNs;
    let endNs = this.#sense(readyNs, ppn, bytes, attemptCount, job);
    const channel = this.#channelOf(ppn);
    for (let left = bytes; left > 0; left -= PIECE_BYTES) endNs = this.#moveOut(channel, endNs, left);
    return this.#emptied(ppn, endNs);
  }

  /** The same, and each piece on to the host as it comes. */
  readToHost(readyNs: number, ppn: number, bytes: number, attemptCount: number, job: number): number {
    if (this.#buffer.holds(ppn, readyNs)) return this.deviceToHost(readyNs, bytes);
    let pieceNs = this.#sense(readyNs, ppn, bytes, attemptCount, job);
    let endNs = pieceNs;
    const channel = this.#channelOf(ppn);
    for (let left = bytes; left > 0; left -= PIECE_BYTES) {
      pieceNs = this.#moveOut(channel, pieceNs, left);
      endNs = this.deviceToHost(pieceNs, Math.min(left, PIECE_BYTES));
    }
    this.#emptied(ppn, pieceNs);
    return endNs;
  }

  /** A page from the host: into the write buffer, then to its die. Returns when the host is rid of it. */
  programPosted(readyNs: number, ppn: number, job: number): number {
    const acceptedNs = this.#buffer.admit(readyNs);
    const endNs = this.#program(acceptedNs, ppn, job);
    this.#programsEndNs = Math.max(this.#programsEndNs, endNs);
    if (this.#buffer.pageCount === 0) return endNs;
    this.#buffer.keep(ppn, endNs);
    return acceptedNs;
  }

  /** A page from elsewhere in the drive; returns the end of its program. */
  program(readyNs: number, ppn: number, job: number): number {
    return this.#program(readyNs, ppn, job);
  }

  /** The block that the page is in. */
  erase(readyNs: number, ppn: number, job: number): number {
    return this.#dies.erase(readyNs, ppn, job);
  }

  /** When a flush may complete. */
  flush(readyNs: number): number {
    return this.profile.writeBuffer.isProtected ? readyNs : Math.max(readyNs, this.#programsEndNs);
  }

  // --- Compute ---

  /** Bytes of keys or values and the work on them, by the unit that has the least to do. */
  compute(readyNs: number, bytes: number, flops: number): number {
    const { bytesPerSecond, flopsPerSecond } = this.profile.compute;
    const durationNs = Math.max(transferNs(bytes, bytesPerSecond), transferNs(flops, flopsPerSecond));
    return this.#leastBusyUnit().reserve(readyNs, durationNs);
  }

  /** What does not stream, for so many heads. */
  finishHeads(readyNs: number, headCount: number): number {
    return this.#leastBusyUnit().reserve(readyNs, headCount * this.profile.compute.headNs);
  }

  usage(): DeviceUsage {
    const { unitCount } = this.profile.compute;
    return {
      dies: { count: this.#dies.arrayCount, busyNs: this.#dies.busyNs },
      channels: { count: this.#channels.length, busyNs: sumBusyNs(this.#channels) },
      compute: { count: unitCount, busyNs: sumBusyNs(this.#compute) },
      linkIn: { count: 1, busyNs: this.#linkIn.busyNs },
      linkOut: { count: 1, busyNs: this.#linkOut.busyNs },
    };
  }

  #channelOf(ppn: number): Timeline {
    return this.#channels[this.#dies.unitOf(ppn) % this.shape.channelCount]!;
  }

  /** From the cells into the page register; returns when the page can leave it. */
  #sense(readyNs: number, ppn: number, bytes: number, attemptCount: number, job: number): number {
    const { flash, channel } = this.profile;
    const unit = this.#dies.unitOf(ppn);
    const registerFreeNs = this.#outFreeNs[unit]!;
    const commandEndNs = this.#channelOf(ppn).reserve(readyNs, channel.commandNs);
    if (!flash.cacheRead) {
      return this.#dies.read(Math.max(commandEndNs, registerFreeNs), ppn, bytes, attemptCount, job);
    }
    const sensedNs = this.#dies.read(commandEndNs, ppn, bytes, attemptCount, job);
    if (registerFreeNs <= sensedNs) return sensedNs;
    // The cells keep the page until its predecessor has left the register.
    this.#dies.holdUntil(unit, registerFreeNs);
    return registerFreeNs;
  }

  #moveOut(channel: Timeline, readyNs: number, bytesLeft: number): number {
    return channel.reserve(readyNs, transferNs(Math.min(bytesLeft, PIECE_BYTES), this.profile.channel.bytesPerSecond));
  }

  /** The page has left the register. */
  #emptied(ppn: number, atNs: number): number {
    const unit = this.#dies.unitOf(ppn);
    this.#outFreeNs[unit] = atNs;
    if (!this.profile.flash.cacheRead) this.#dies.holdUntil(unit, atNs);
    return atNs;
  }

  #program(readyNs: number, ppn: number, job: number): number {
    const { flash, channel } = this.profile;
    const unit = this.#dies.unitOf(ppn);
    let registerFreeNs = Math.max(readyNs, this.#inFreeNs[unit]!);
    // With one register for both ways it is the die that must be idle; planes that join have one each.
    if (!flash.cacheProgram && flash.planes !== 'together') {
      registerFreeNs = Math.max(registerFreeNs, this.#dies.freeNs(unit));
    }
    const durationNs = channel.commandNs + transferNs(this.shape.pageSizeBytes, channel.bytesPerSecond);
    const filledNs = this.#channelOf(ppn).reserve(registerFreeNs, durationNs);
    const startNs = this.#dies.program(filledNs, ppn, job);
    const endNs = this.#dies.endOf(unit);
    this.#inFreeNs[unit] = flash.cacheProgram ? startNs : endNs;
    return endNs;
  }

  #leastBusyUnit(): Timeline {
    let least = this.#compute[0]!;
    for (const unit of this.#compute) if (unit.endNs < least.endNs) least = unit;
    return least;
  }
}

/** Whole nanoseconds, rounded up. */
export const transferNs = (amount: number, perSecond: number): number =>
  perSecond === Number.POSITIVE_INFINITY ? 0 : Math.ceil((amount / perSecond) * 1e9);

const sumBusyNs = (timelines: readonly Timeline[]): number =>
  timelines.reduce((sum, timeline) => sum + timeline.busyNs, 0);
