/** Plays one session from its seed, or from a list of inputs, and makes a failing list short. */
import { Prng } from '../sim/prng.ts';
import { inputsText, parseInputs } from './inputs.ts';
import type { Session, Target } from './target.ts';
import { Tally, type TallyData } from './tally.ts';

/** A session that ended in another way than it should. */
export interface Failure {
  readonly message: string;
  readonly stack: string;
  /** Cases up to the one that failed, it included: the session plays them again. */
  readonly cases: number;
  /** As few inputs as still fail, as `inputsText` writes them. */
  readonly inputs: string;
}

export interface SessionOutcome {
  readonly target: string;
  readonly seed: string;
  readonly tally: TallyData;
  readonly failure: Failure | undefined;
}

export interface SessionOrder {
  readonly seed: bigint;
  readonly casesMax: number;
  readonly bug?: string | undefined;
  /** How often a failing list of inputs is played to make it shorter; 0: it is left as it is. */
  readonly shrinkPlaysMax?: number;
}

/** Longer than anything takes that one input can set off. */
const INPUT_TIMEOUT_MS = 20_000;

/** No more plays are begun to make a list of inputs shorter after so long. */
const SHRINK_TIME_MS = 60_000;

let failRunning: ((error: unknown) => void) | undefined;
let isListening = false;

/** Fails a running session for what nobody awaits, too. */
async function guarded<T>(work: () => Promise<T>): Promise<T> {
  if (!isListening) process.on('unhandledRejection', (error) => failRunning?.(error));
  isListening = true;
  const outer = failRunning;
  try {
    const unhandled = new Promise<never>((_, reject) => (failRunning = reject));
    return await Promise.race([work(), unhandled]);
  } finally {
    failRunning = outer;
  }
}

/** A promise that does not settle in time is a hang. What settles at once costs no timer. */
async function inTime(what: string, work: Promise<void> | void): Promise<void> {
  if (work === undefined) return;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`${what} hangs: nothing after ${INPUT_TIMEOUT_MS} ms`)),
      INPUT_TIMEOUT_MS,
    );
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

const contextOf = (target: Target, seed: bigint, tally: Tally, bug: string | undefined) => ({
  random: Prng.of(seed, `${target.name}/session`),
  tally,
  bug,
});

/** Plays inputs as they are drawn. What it played is in `inputs`, also where it throws. */
async function playDrawn(target: Target, order: SessionOrder, tally: Tally, inputs: unknown[]): Promise<void> {
  const random = Prng.of(order.seed, `${target.name}/inputs`);
  const session = await target.open(contextOf(target, order.seed, tally, order.bug));
  try {
    while (tally.cases < order.casesMax) {
      const input = session.draw(random);
      inputs.push(input);
      await inTime('an input', session.play(input));
    }
  } catch (error) {
    await abandon(session);
    throw error;
  }
  await inTime('the end', session.close());
}

/** The session has failed already: what it says at its end counts no more. */
async function abandon(session: Session<unknown>): Promise<void> {
  try {
    await inTime('the end', session.close());
  } catch {
    // It has failed as it is.
  }
}

/** Plays a list of inputs in a session of that seed. Throws what goes wrong. */
export function playInputs(target: Target, seed: bigint, inputs: readonly unknown[], bug?: string): Promise<void> {
  return guarded(async () => {
    const session = await target.open(contextOf(target, seed, new Tally(), bug));
    try {
      for (const input of inputs) await inTime('an input', session.play(input));
    } catch (error) {
      await abandon(session);
      throw error;
    }
    await inTime('the end', session.close());
  });
}

export async function playSession(target: Target, order: SessionOrder): Promise<SessionOutcome> {
  const tally = new Tally();
  tally.sessions = 1;
  const inputs: unknown[] = [];
  let failure: Failure | undefined;
  try {
    await guarded(() => playDrawn(target, order, tally, inputs));
  } catch (error) {
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    const { cases } = tally;
    // As text and back: what a kept input can't carry must not be what the failure hangs on.
    const kept = await shrink(target, order, parseInputs(inputsText(inputs)), message);
    failure = { message, stack: stack ?? message, cases, inputs: inputsText(kept) };
  }
  return { target: target.name, seed: String(order.seed), tally: tally.data, failure };
}

/** What went wrong, whatever the numbers. */
const kindOf = (message: string): string => message.replaceAll(/\d+/g, '#').slice(0, 60);

/** Leaves out runs of inputs, ever shorter ones, as long as the rest still fails in the same way. */
async function shrink(
  target: Target,
  order: SessionOrder,
  failing: readonly unknown[],
  message: string,
): Promise<readonly unknown[]> {
  let inputs = failing;
  let playsLeft = order.shrinkPlaysMax ?? 0;
  // What hangs would take hours.
  const endMs = performance.now() + SHRINK_TIME_MS;
  const fails = async (candidate: readonly unknown[]): Promise<boolean> => {
    playsLeft = performance.now() < endMs ? playsLeft - 1 : 0;
    try {
      await playInputs(target, order.seed, candidate, order.bug);
      return false;
    } catch (error) {
      return kindOf(error instanceof Error ? error.message : String(error)) === kindOf(message);
    }
  };
  if (playsLeft === 0 || !(await fails(inputs))) return inputs;
  for (let size = Math.ceil(inputs.length / 2); playsLeft > 0; size = Math.ceil(size / 2)) {
    for (let at = 0; at < inputs.length && playsLeft > 0; ) {
      const candidate = [...inputs.slice(0, at), ...inputs.slice(at + size)];
      if (candidate.length < inputs.length && (await fails(candidate))) inputs = candidate;
      else at += size;
    }
    if (size === 1) break;
  }
  return inputs;
}
