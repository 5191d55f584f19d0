import type { Command } from './command.ts';
import { DriveProtocolError } from './errors.ts';

/** Told once how a command ended: with DW0 and DW1 of a success, or with an error. */
export interface CommandEnd {
  succeed(dw0: number, dw1: number): void;
  fail(error: Error): void;
}

/** One command that the drive has and has not answered. */
export interface Flight {
  commandId: number;
  command: Command | undefined;
  end: CommandEnd | undefined;
  /** Bytes of C2HData so far; they come in order. */
  receivedBytes: number;
  /** Bytes asked for by R2T so far; they are asked for in order. */
  sentBytes: number;
  /** Nobody waits any more: what arrives is dropped. */
  abandoned: boolean;
  /** Data came that does not fit its digest. */
  damaged: boolean;
}

const SLOT_BITS = 8;
const SLOT_MASK = (1 << SLOT_BITS) - 1;
export const IN_FLIGHT_MAX = 1 << SLOT_BITS;

/**
 * The commands in flight on one queue. A command id is a slot number and, above it, a generation that changes each time
 * the slot is used, so that an answer that comes twice or too late matches nothing.
 */
export class InFlight {
  readonly #flights: Flight[];
  readonly #free: number[] = [];

  constructor(capacity: number) {
    if (capacity < 1 || capacity > IN_FLIGHT_MAX) throw new RangeError(`queue of ${capacity} commands`);
    this.#flights = Array.from({ length: capacity }, (_, slot) => ({
      commandId: slot,
      command: undefined,
      end: undefined,
      receivedBytes: 0,
      sentBytes: 0,
      abandoned: false,
      damaged: false,
    }));
    for (let slot = capacity - 1; slot >= 0; slot--) this.#free.push(slot);
  }

  get freeCount(): number {
    return this.#free.length;
  }

  get activeCount(): number {
    return this.#flights.length - this.#free.length;
  }

  /** Takes a slot, of which there must be a free one, and returns the command id. */
  add(command: Command, end: CommandEnd): number {
    const slot = this.#free.pop();
    const flight = slot === undefined ? undefined : this.#flights[slot];
    if (flight === undefined) throw new Error('submitted a command without a credit');
    flight.commandId = (flight.commandId + (1 << SLOT_BITS)) & 0xffff;
    flight.command = command;
    flight.end = end;
    flight.receivedBytes = 0;
    flight.sentBytes = 0;
    flight.abandoned = false;
    flight.damaged = false;
    return flight.commandId;
  }

  /** The command that a PDU names. DriveProtocolError if there is none. */
  find(commandId: number): Flight & { command: Command } {
    const flight = this.#flights[commandId & SLOT_MASK];
    if (flight?.command === undefined || flight.commandId !== commandId) {
      throw new DriveProtocolError(`the drive answered command ${commandId}, which is not in flight`);
    }
    return flight as Flight & { command: Command };
  }

  /** Frees the slot and hands back whom to tell. */
  remove(flight: Flight): CommandEnd {
    const { end } = flight;
    if (end === undefined) throw new Error(`command ${flight.commandId} ended twice`);
    flight.command = undefined;
    flight.end = undefined;
    this.#free.push(flight.commandId & SLOT_MASK);
    return end;
  }

  abandon(command: Command): void {
    const flight = this.#flights.find((candidate) => candidate.command === command);
    if (flight !== undefined) flight.abandoned = true;
  }

  failAll(error: Error): void {
    for (const flight of this.#flights) if (flight.command !== undefined) this.remove(flight).fail(error);
  }
}
