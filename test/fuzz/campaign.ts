/** Plays sessions of many seeds in processes of their own, and finds out when one of them hangs or dies. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { CoveredScript } from './coverage.ts';
import type { SessionOutcome } from './player.ts';
import type { Target } from './target.ts';
import { Tally } from './tally.ts';

export type Order =
  | {
      readonly do: 'session';
      readonly target: string;
      readonly seed: string;
      readonly casesMax: number;
      readonly bug: string | undefined;
      readonly wantsMemory: boolean;
    }
  | { readonly do: 'end' };

export type Answer =
  | { readonly kind: 'outcome'; readonly outcome: SessionOutcome; readonly memoryBytes: number | undefined }
  | { readonly kind: 'coverage'; readonly scripts: readonly CoveredScript[] };

export interface CampaignOptions {
  readonly targets: readonly Target[];
  /** The first session of each target has it, the next ones those above. */
  readonly seed: bigint;
  readonly cases: number;
  /** Infinity: no limit. */
  readonly seconds: number;
  readonly jobs: number;
  readonly bug: string | undefined;
  readonly keepsGoing: boolean;
  readonly measuresCoverage: boolean;
}

export interface CampaignEvents {
  readonly outcome: (outcome: SessionOutcome) => void;
  readonly memory: (bytes: number) => void;
  readonly coverage: (scripts: readonly CoveredScript[]) => void;
}

/** Longer than any session takes, its shrinking included. */
const SESSION_TIMEOUT_MS = 300_000;
/** Sessions between two looks at the memory of a process. */
const MEMORY_INTERVAL = 40;

/** Shares the cases out: next comes a session of the target that is furthest behind its share. */
class Shares {
  readonly #states: { readonly target: Target; readonly cases: number; given: number; seed: bigint }[];

  constructor(options: CampaignOptions) {
    const total = options.targets.reduce((sum, { share }) => sum + share, 0);
    this.#states = options.targets.map((target) => ({
      target,
      cases: Math.ceil((options.cases * target.share) / total),
      given: 0,
      seed: options.seed,
    }));
  }

  next(): { target: Target; seed: bigint; casesMax: number } | undefined {
    const open = this.#states.filter(({ given, cases }) => given < cases);
    if (open.length === 0) return undefined;
    const state = open.reduce((a, b) => (b.given / b.cases < a.given / a.cases ? b : a));
    const { target, seed } = state;
    const casesMax = Math.min(target.casesPerSession, state.cases - state.given);
    state.given += casesMax;
    state.seed++;
    return { target, seed, casesMax };
  }
}

export async function runCampaign(options: CampaignOptions, events: CampaignEvents): Promise<void> {
  const shares = new Shares(options);
  const endMs = performance.now() + options.seconds * 1000;
  let isStopped = false;
  const next = (): ReturnType<Shares['next']> => (isStopped || performance.now() >= endMs ? undefined : shares.next());
  const outcome = (one: SessionOutcome): void => {
    if (one.failure && !options.keepsGoing) isStopped = true;
    events.outcome(one);
  };
  const employed = Array.from({ length: options.jobs }, async () => {
    // A process that dies or hangs fails its session; another one takes the next.
    while (await new Employee(options, next, { ...events, outcome }).work());
  });
  await Promise.all(employed);
}

/** One process and what it is doing. */
class Employee {
  readonly #options: CampaignOptions;
  readonly #next: () => ReturnType<Shares['next']>;
  readonly #events: CampaignEvents;
  readonly #child: ChildProcess;
  #current: { target: Target; seed: bigint; casesMax: number } | undefined;
  #sessions = 0;
  #timer: NodeJS.Timeout | undefined;
  #stderr = '';

  constructor(options: CampaignOptions, next: () => ReturnType<Shares['next']>, events: CampaignEvents) {
    this.#options = options;
    this.#next = next;
    this.#events = events;
    const execArgv = ['--expose-gc', '--enable-source-maps'];
    const args = options.measuresCoverage ? ['--coverage'] : [];
    this.#child = fork(fileURLToPath(new URL('./worker.js', import.meta.url)), args, { execArgv, silent: true });
    this.#child.stderr?.on('data', (text: Buffer) => (this.#stderr = (this.#stderr + String(text)).slice(-4000)));
  }

  /** True: it has died, and there is more to do. */
  work(): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const child = this.#child;
      child.on('message', (answer: Answer) => this.#answered(answer));
      child.on('error', reject);
      child.on('exit', (code, signal) => {
        clearTimeout(this.#timer);
        if (this.#current !== undefined) this.#died(`the process ended with ${code ?? signal}: ${this.#stderr}`);
        resolve(this.#current !== undefined);
      });
      this.#giveOrder();
    });
  }

  #send(order: Order): void {
    this.#child.send(order);
  }

  #giveOrder(): void {
    clearTimeout(this.#timer);
    this.#current = this.#next();
    if (this.#current === undefined) {
      this.#send({ do: 'end' });
      return;
    }
    const { target, seed, casesMax } = this.#current;
    const wantsMemory = this.#sessions++ % MEMORY_INTERVAL === MEMORY_INTERVAL - 1;
    this.#send({
      do: 'session',
      target: target.name,
      seed: String(seed),
      casesMax,
      bug: this.#options.bug,
      wantsMemory,
    });
    this.#timer = setTimeout(() => this.#child.kill('SIGKILL'), SESSION_TIMEOUT_MS);
  }

  #answered(answer: Answer): void {
    if (answer.kind === 'coverage') {
      this.#events.coverage(answer.scripts);
      this.#child.disconnect();
      return;
    }
    this.#events.outcome(answer.outcome);
    if (answer.memoryBytes !== undefined) this.#events.memory(answer.memoryBytes);
    this.#giveOrder();
  }

  #died(message: string): void {
    const { target, seed, casesMax } = this.#current!;
    const tally = new Tally();
    tally.sessions = 1;
    const failure = { message, stack: message, cases: casesMax, inputs: '' };
    this.#events.outcome({ target: target.name, seed: String(seed), tally: tally.data, failure });
  }
}
