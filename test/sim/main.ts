// npm run sim -- --seed N --cuts N: plays histories from consecutive seeds and says what went wrong, if anything did.
import { parseArgs } from 'node:util';
import { countOption } from './count-option.ts';
import { mutations } from './mutations.ts';
import { type Outcome, playMany, type PlayOptions, replayLine } from './player.ts';
import { formatSeed, parseSeed } from './prng.ts';
import { addTally, describeCounts, newTally } from './tally.ts';

const USAGE = `npm run sim -- [options]

  --seed N       first seed: a whole number, 0x..., or 40 hexadecimal digits (a commit); default: drawn
  --cuts N       power cuts of all histories together; default 1000
  --seconds N    begins no history after so long
  --jobs N       processes; default 1
  --bug NAME     plants a bug: ${Object.keys(mutations).join(', ')}
  --keep-going   goes on after a failure
  --verbose      one line for each history
  --trace        one line for everything that happens; with --jobs 1
  --json         one JSON object a line

Exit status: 0 nothing was lost, 1 something was, 2 the options are wrong.`;

interface Settings extends PlayOptions {
  readonly isJson: boolean;
  readonly isVerbose: boolean;
  readonly isTracing: boolean;
}

function settingsOf(args: readonly string[]): Settings | undefined {
  const string = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      seed: string,
      cuts: string,
      seconds: string,
      jobs: string,
      bug: string,
      'keep-going': flag,
      verbose: flag,
      trace: flag,
      json: flag,
      help: flag,
    },
  });
  if (values.help === true) return undefined;
  const { bug } = values;
  if (bug !== undefined && !Object.hasOwn(mutations, bug)) {
    throw new Error(`--bug ${bug}: one of ${Object.keys(mutations).join(', ')}`);
  }
  const drawn = BigInt(crypto.getRandomValues(new Uint32Array(1))[0]!);
  const jobs = countOption(values.jobs, 'jobs', 1);
  if (values.trace === true && jobs > 1) throw new Error('--trace: with --jobs 1 only');
  return {
    seed: values.seed === undefined ? drawn : parseSeed(values.seed),
    cuts: countOption(values.cuts, 'cuts', 1000),
    seconds: countOption(values.seconds, 'seconds', Number.POSITIVE_INFINITY),
    jobs,
    bug,
    keepsGoing: values['keep-going'] === true,
    isJson: values.json === true,
    isVerbose: values.verbose === true,
    isTracing: values.trace === true,
  };
}

/** Adds outcomes up, and tells of them as they come. */
class Report {
  readonly #settings: Settings;
  readonly #beginMs = performance.now();
  readonly #total = newTally();
  #histories = 0;
  failures = 0;
  #lastProgressMs = 0;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  begin(): void {
    const { seed, cuts, bug } = this.#settings;
    if (this.#settings.isJson) this.#print({ event: 'begin', seed: formatSeed(seed), cuts, bug });
    else console.log(`seed ${formatSeed(seed)}, ${cuts} power cuts${bug === undefined ? '' : `, with the bug ${bug}`}`);
  }

  add(outcome: Outcome): void {
    this.#histories++;
    addTally(this.#total, outcome.tally);
    const { failure, seed, options } = outcome;
    const name = formatSeed(BigInt(seed));
    if (failure) {
      this.failures++;
      this.#clearProgress();
      const replay = replayLine(seed, failure.cuts, this.#settings.bug);
      if (this.#settings.isJson) this.#print({ event: 'failure', seed: name, ...failure, options, replay });
      else console.log(`seed ${name}: ${options}\n${failure.stack}\nFAILED, again by: ${replay}`);
    } else if (this.#settings.isVerbose) {
      this.#clearProgress();
      if (this.#settings.isJson) this.#print({ event: 'history', ...outcome, seed: name });
      else
        console.log(
          `seed ${name}: ${outcome.tally.powerCuts} power cuts, ${outcome.tally.commands} commands; ${options}`,
        );
    }
    this.#progress();
  }

  #progress(): void {
    if (!process.stderr.isTTY || this.#settings.isJson) return;
    const nowMs = performance.now();
    if (nowMs - this.#lastProgressMs < 200) return;
    this.#lastProgressMs = nowMs;
    const { powerCuts } = this.#total;
    const seconds = (nowMs - this.#beginMs) / 1000;
    const leftSeconds = Math.round(((this.#settings.cuts - powerCuts) * seconds) / powerCuts);
    const text = `${powerCuts} of ${this.#settings.cuts} power cuts, ${this.#histories} histories, ${this.failures} failures`;
    process.stderr.write(`\r\x1b[K${text}, ${(powerCuts / seconds).toFixed(0)} a second, ${leftSeconds} s left`);
  }

  #clearProgress(): void {
    if (process.stderr.isTTY && !this.#settings.isJson) process.stderr.write('\r\x1b[K');
  }

  end(): void {
    this.#clearProgress();
    const total = this.#total;
    const seconds = (performance.now() - this.#beginMs) / 1000;
    if (this.#settings.isJson) {
      this.#print({ event: 'end', histories: this.#histories, failures: this.failures, ...total, seconds });
      return;
    }
    const ends = `${total.powerCuts} power cuts, ${total.kills} kills, ${total.shutdowns} shutdowns`;
    const troubles = `${total.refusals} refusals, ${total.readFailures} failed reads`;
    const work = `${total.commands} commands, ${total.timedJobs} device times, ${total.diskSteps} disk steps, ${troubles}`;
    console.log(`${this.#histories} histories: ${ends}; ${work}; ${total.virtualSeconds.toFixed(0)} s of virtual time`);
    console.log(
      `power went while ${describeCounts(total.cutsWhile)}; up to ${total.cutsInRowMax} times before it was open`,
    );
    console.log(`power went before ${describeCounts(total.cutsBefore)}`);
    const result = this.failures === 0 ? 'nothing was lost' : `${this.failures} histories failed`;
    console.log(
      `${result}; ${seconds.toFixed(1)} s, ${((1000 * seconds) / total.powerCuts).toFixed(1)} ms a power cut`,
    );
  }

  #print(line: object): void {
    console.log(JSON.stringify(line));
  }
}

async function main(args: readonly string[]): Promise<number> {
  let settings: Settings | undefined;
  try {
    settings = settingsOf(args);
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  if (settings === undefined) {
    console.log(USAGE);
    return 0;
  }
  const report = new Report(settings);
  report.begin();
  const print = settings.isTracing ? (line: string): void => console.log(line) : undefined;
  await playMany(settings, (outcome) => report.add(outcome), print);
  report.end();
  return report.failures === 0 ? 0 : 1;
}

// A history that failed leaves commands that wait for ever.
main(process.argv.slice(2)).then(
  (status) => process.exit(status),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
