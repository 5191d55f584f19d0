/** Plays histories of consecutive seeds until enough was cut, in this process or in several. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type HistoryReport, HistoryFailure, playHistory } from './history.ts';
import { mutationNamed } from './mutations.ts';
import { describeOptions, drawOptions } from './options.ts';
import { formatSeed, Prng } from './prng.ts';
import { newTally, type Tally } from './tally.ts';
import { Trace } from './trace.ts';

export interface Order {
  /** As `parseSeed` reads it. */
  readonly seed: string;
  readonly cutsMax: number;
  /** Name of a mutation. */
  readonly bug?: string | undefined;
}

/** What became of one history; it can cross a process boundary. */
export interface Outcome {
  readonly seed: string;
  readonly options: string;
  /** Of a history that failed, only how many power cuts it had. */
  readonly tally: Tally;
  readonly failure: { readonly cuts: number; readonly message: string; readonly stack: string } | undefined;
}

/** Whoever waits for the running history: a promise that nobody awaits has failed. */
let failRunning: ((error: unknown) => void) | undefined;
let isListening = false;

/** `print`: a line of what happens, for each thing that does. */
export async function play({ seed, cutsMax, bug }: Order, print?: (line: string) => void): Promise<Outcome> {
  const options = describeOptions(drawOptions(Prng.of(BigInt(seed), 'options')));
  const trace = new Trace();
  if (print) trace.printTo(print);
  if (!isListening) process.on('unhandledRejection', (error) => failRunning?.(error));
  isListening = true;
  try {
    const unhandled = new Promise<never>((_, reject) => (failRunning = reject));
    const mutation = bug === undefined ? undefined : mutationNamed(bug);
    const history = playHistory({ seed: BigInt(seed), cutsMax, trace, mutation });
    const report: HistoryReport = await Promise.race([history, unhandled]);
    return { seed, options, tally: report.tally, failure: undefined };
  } catch (error) {
    const cuts = error instanceof HistoryFailure ? error.cuts : cutsMax;
    const cause = error instanceof HistoryFailure ? error.cause : error;
    const { message, stack } = cause instanceof Error ? cause : new Error(String(cause));
    const tally = { ...newTally(), powerCuts: cuts };
    return { seed, options, tally, failure: { cuts, message, stack: stack ?? message } };
  } finally {
    failRunning = undefined;
  }
}

/** One line that plays exactly this failure again. */
export const replayLine = (seed: string, cuts: number, bug: string | undefined): string =>
  `npm run sim -- --seed ${formatSeed(BigInt(seed))} --cuts ${cuts}${bug === undefined ? '' : ` --bug ${bug}`}`;

export interface PlayOptions {
  readonly seed: bigint;
  readonly cuts: number;
  /** Infinity: no limit. */
  readonly seconds: number;
  readonly jobs: number;
  readonly bug?: string | undefined;
  readonly keepsGoing: boolean;
}

/** Hands out seeds in order. `done` sees every outcome. */
export async function playMany(
  options: PlayOptions,
  done: (outcome: Outcome) => void,
  print?: (line: string) => void,
): Promise<void> {
  const endMs = performance.now() + options.seconds * 1000;
  let { seed } = options;
  let cutsLeft = options.cuts;
  let isStopped = false;
  const next = (): Order | undefined => {
    if (isStopped || cutsLeft <= 0 || performance.now() >= endMs) return undefined;
    const { cutCount } = drawOptions(Prng.of(seed, 'options'));
    const cutsMax = Math.min(cutCount, cutsLeft);
    cutsLeft -= cutsMax;
    return { seed: `0x${(seed++).toString(16)}`, cutsMax, bug: options.bug };
  };
  const finished = (outcome: Outcome): void => {
    if (outcome.failure && !options.keepsGoing) isStopped = true;
    done(outcome);
  };
  if (options.jobs === 1) {
    for (let order = next(); order !== undefined; order = next()) finished(await play(order, print));
    return;
  }
  await Promise.all(Array.from({ length: options.jobs }, () => employ(next, finished)));
}

/** A process of its own, which is given one order after another. */
async function employ(next: () => Order | undefined, done: (outcome: Outcome) => void): Promise<void> {
  const child: ChildProcess = fork(fileURLToPath(new URL('./worker.js', import.meta.url)));
  await new Promise<void>((resolve, reject) => {
    const giveOrder = (): void => {
      const order = next();
      if (order === undefined) child.disconnect();
      else child.send(order);
    };
    child.on('message', (outcome: Outcome) => {
      done(outcome);
      giveOrder();
    });
    child.on('error', reject);
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`a worker ended with ${code}`))));
    giveOrder();
  });
}
