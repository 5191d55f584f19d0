/** What a fuzzer is made of: a target that opens sessions, and sessions that draw inputs and judge what became of them. */
import type { Prng } from '../sim/prng.ts';
import type { Tally } from './tally.ts';

/**
 * One run of whatever is fuzzed, from new to closed. Inputs are plain data (`Uint8Array`s included), and what one does and
 * what it must be answered follows from itself and from the inputs played before it, never from how it was drawn: so a list
 * of them can be kept, cut down and played again.
 */
export interface Session<I> {
  /** The next input. It may depend on what was played before. */
  draw(random: Prng): I;
  /** Plays it and counts its cases. Throws if anything about the answer is wrong. */
  play(input: I): Promise<void> | void;
  /** The end: throws if something has been left behind. */
  close(): Promise<void> | void;
}

export interface SessionContext {
  /** Chance of what the session is like; inputs have their own. */
  readonly random: Prng;
  readonly tally: Tally;
  /** A bug to plant: one of the target's. */
  readonly bug: string | undefined;
}

export interface Target<I = unknown> {
  readonly name: string;
  /** What is fuzzed. */
  readonly what: string;
  /** Of a case: what it has done when it has passed framing. */
  readonly framing: string;
  /** Of the cases of a campaign over all targets, in proportion to the others' shares. */
  readonly share: number;
  readonly casesPerSession: number;
  /** Cases of the smoke run. */
  readonly smokeCases: number;
  /** What each bug breaks that can be planted. */
  readonly bugs: Readonly<Record<string, string>>;
  open(context: SessionContext): Promise<Session<I>> | Session<I>;
}
