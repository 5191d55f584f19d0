import { type AsyncEventName, asyncEventBits, asyncEvents } from '../../spec/async-events.ts';
import { packBits } from '../../spec/bits.ts';
import { DriveError } from '../base/errors.ts';
import type { AsyncEventRequests, CommandResult, Limits } from '../commands/contract.ts';

interface Request {
  resolve(result: CommandResult): void;
  reject(error: DriveError): void;
}

/**
 * Asynchronous events of one controller. An event waits for a request and a request for an event. Once told, further
 * events that the same log page tells of are held to be told too, until the host reads that page.
 */
export class AsyncEvents implements AsyncEventRequests {
  readonly #limits: Limits;
  readonly #isWanted: (name: AsyncEventName) => boolean;
  /** By command id, oldest first. */
  readonly #requests = new Map<number, Request>();
  /** Happened and told to nobody yet, oldest first. */
  #pending: AsyncEventName[] = [];
  /** Log pages of events that were told, and not read since. */
  readonly #unread = new Set<number>();

  /** `isWanted`: whether the host's configuration has the event switched on. */
  constructor(options: { limits: Limits; isWanted: (name: AsyncEventName) => boolean }) {
    this.#limits = options.limits;
    this.#isWanted = options.isWanted;
  }

  request(commandId: number): Promise<CommandResult> {
    const { asyncEventRequestCountMax } = this.#limits;
    if (this.#requests.size >= asyncEventRequestCountMax) {
      throw new DriveError('asyncEventLimit', `allowed: ${asyncEventRequestCountMax} at once (AERL)`);
    }
    return new Promise((resolve, reject) => {
      this.#requests.set(commandId, { resolve, reject });
      this.#tell();
    });
  }

  /** Something happened that its host may want to know. */
  report(name: AsyncEventName): void {
    if (!this.#isWanted(name) || this.#unread.has(asyncEvents[name].lid) || this.#pending.includes(name)) return;
    this.#pending.push(name);
    this.#tell();
  }

  logPageRead(lid: number): void {
    this.#unread.delete(lid);
  }

  /** Ends one request with status `aborted`. False: there is none of this command id. */
  abort(commandId: number): boolean {
    const request = this.#requests.get(commandId);
    if (request === undefined) return false;
    this.#requests.delete(commandId);
    request.reject(new DriveError('aborted', 'asynchronous event request'));
    return true;
  }

  /** Ends every request and forgets every event. */
  reset(): void {
    for (const commandId of [...this.#requests.keys()]) this.abort(commandId);
    this.#pending = [];
    this.#unread.clear();
  }

  #tell(): void {
    for (const [commandId, { resolve }] of this.#requests) {
      const name = this.#pending.shift();
      if (name === undefined) return;
      const { type, info, lid } = asyncEvents[name];
      this.#pending = this.#pending.filter((other) => asyncEvents[other].lid !== lid);
      this.#unread.add(lid);
      this.#requests.delete(commandId);
      resolve({ dw0: packBits(asyncEventBits, { type, info, lid }), dw1: 0 });
    }
  }
}
