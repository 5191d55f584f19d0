/** What a campaign has found out, for people or line by line for programs. */
import { commandStatuses } from '../../spec/command-statuses.ts';
import { formatSeed } from '../sim/prng.ts';
import type { CampaignOptions } from './campaign.ts';
import { CoverageReport, type CoveredScript } from './coverage.ts';
import type { SessionOutcome } from './player.ts';
import { Tally } from './tally.ts';
import { unreached } from './unreached.ts';

const MIB = 2 ** 20;
const PROGRESS_MS = 10_000;
/** More than this is a leak, whatever else explains. */
const MEMORY_GROWTH_MAX_BYTES = 96 * MIB;
/** Looks at the memory that count as its beginning. */
const MEMORY_WARM_UP = 3;

/** One line that plays exactly this failure again. */
export const replayLine = ({ target, seed, failure }: SessionOutcome, bug: string | undefined): string =>
  `npm run fuzz -- --target ${target} --seed ${formatSeed(BigInt(seed))} --cases ${failure?.cases ?? 1}` +
  (bug === undefined ? '' : ` --bug ${bug}`);

interface MissingCells {
  readonly wanted: number;
  readonly missingCount: number;
  /** Statuses that were not reached, by command. */
  readonly missing: ReadonlyMap<string, readonly string[]>;
}

/** Commands and statuses of the table that were not reached, without those that no host can bring about. */
export function missingCells(cells: ReadonlyMap<string, number>): MissingCells {
  const missing = new Map<string, string[]>();
  let wanted = 0;
  for (const { set, name, general, own } of commandStatuses) {
    const row = `${set} ${name}`;
    const statuses = [...new Set(['success', ...general, ...own])].filter((one) => unreached(row, one) === undefined);
    const open = statuses.filter((status) => !cells.has(`${row} ${status}`));
    wanted += statuses.length;
    if (open.length > 0) missing.set(row, open);
  }
  const missingCount = [...missing.values()].reduce((sum, { length }) => sum + length, 0);
  return { wanted, missingCount, missing };
}

export class CampaignReport {
  readonly #options: CampaignOptions;
  readonly #isJson: boolean;
  readonly #beginMs = performance.now();
  readonly #tallies = new Map<string, Tally>();
  readonly #coverage = new CoverageReport();
  readonly #memory: number[] = [];
  #lastProgressMs = 0;
  failures = 0;

  constructor(options: CampaignOptions, isJson: boolean) {
    this.#options = options;
    this.#isJson = isJson;
    for (const { name } of options.targets) this.#tallies.set(name, new Tally());
  }

  get #total(): Tally {
    const total = new Tally();
    for (const tally of this.#tallies.values()) total.add(tally.data);
    return total;
  }

  begin(): void {
    const { seed, cases, bug, targets } = this.#options;
    const names = targets.map(({ name }) => name);
    if (this.#isJson) this.#print({ event: 'begin', seed: formatSeed(seed), cases, bug, targets: names });
    else console.log(`seed ${formatSeed(seed)}, ${cases} cases of ${names.join(', ')}`);
  }

  outcome(outcome: SessionOutcome): void {
    this.#tallies.get(outcome.target)!.add(outcome.tally);
    const { failure, target, seed } = outcome;
    if (failure) {
      this.failures++;
      const replay = replayLine(outcome, this.#options.bug);
      if (this.#isJson) this.#print({ event: 'failure', target, seed, ...failure, replay });
      else
        console.log(
          `${target}, seed ${seed}: ${failure.stack}\ninputs:\n${failure.inputs}\nFAILED, again by: ${replay}`,
        );
    }
    this.#progress();
  }

  memory(bytes: number): void {
    this.#memory.push(bytes);
  }

  coverage(scripts: readonly CoveredScript[]): void {
    this.#coverage.add(scripts);
  }

  #progress(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lastProgressMs < PROGRESS_MS) return;
    this.#lastProgressMs = nowMs;
    const { cases } = this.#total;
    const seconds = (nowMs - this.#beginMs) / 1000;
    const rate = cases / seconds;
    const leftSeconds = Math.round((this.#options.cases - cases) / rate);
    const counts = {
      cases,
      of: this.#options.cases,
      failures: this.failures,
      casesPerSecond: Math.round(rate),
      leftSeconds,
    };
    if (this.#isJson) this.#print({ event: 'progress', ...counts });
    else {
      console.error(
        `${cases} of ${counts.of} cases, ${this.failures} failures, ${counts.casesPerSecond} a second, ${leftSeconds} s left`,
      );
    }
  }

  /** Prints the sums. False: something is wrong with them. */
  end(): boolean {
    const total = this.#total;
    const seconds = (performance.now() - this.#beginMs) / 1000;
    const matrix = missingCells(total.cells);
    const growthBytes = this.#growthBytes();
    const rooms = this.#coverage.rooms();
    if (this.#isJson) {
      const targets = [...this.#tallies].map(([name, { sessions, cases, framed }]) => ({
        name,
        sessions,
        cases,
        framed,
      }));
      const { wanted, missingCount, missing } = matrix;
      const cells = { wanted, reached: wanted - missingCount, missing: Object.fromEntries(missing) };
      const { failures } = this;
      this.#print({ event: 'end', seconds, failures, targets, cells, memoryGrowthBytes: growthBytes, rooms });
    } else this.#printSums(total, seconds, matrix, growthBytes, rooms);
    return this.failures === 0 && (growthBytes ?? 0) <= MEMORY_GROWTH_MAX_BYTES;
  }

  #printSums(
    total: Tally,
    seconds: number,
    { wanted, missingCount, missing }: MissingCells,
    growthBytes: number | undefined,
    rooms: ReturnType<CoverageReport['rooms']>,
  ): void {
    const percent = (part: number, whole: number): string => `${((100 * part) / Math.max(1, whole)).toFixed(1)} %`;
    for (const [name, { sessions, cases, framed }] of this.#tallies) {
      console.log(`${name}: ${cases} cases in ${sessions} sessions, ${percent(framed, cases)} passed framing`);
    }
    const rate = Math.round(total.cases / seconds);
    console.log(
      `${total.cases} cases, ${percent(total.framed, total.cases)} passed framing, ${this.failures} failures; ` +
        `${seconds.toFixed(0)} s, ${rate} cases a second`,
    );
    if (total.cells.size > 0) {
      console.log(`${wanted - missingCount} of ${wanted} commands x statuses reached`);
      for (const [row, statuses] of missing) console.log(`  not reached: ${row}: ${statuses.join(', ')}`);
    }
    if (growthBytes !== undefined) {
      const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;
      console.log(
        `memory after collection: ${mib(this.#memory.at(-1)!)} at the end, ${mib(growthBytes)} more than at first`,
      );
    }
    for (const { room, lines, linesRun, branches, branchesRun } of rooms) {
      console.log(
        `${room}: ${percent(linesRun, lines)} of ${lines} lines, ${percent(branchesRun, branches)} of ${branches} branches`,
      );
    }
  }

  /** How much more memory is used at the end than at first; undefined: it was looked at too seldom. */
  #growthBytes(): number | undefined {
    if (this.#memory.length < 2 * MEMORY_WARM_UP) return undefined;
    const most = (values: readonly number[]): number => Math.max(...values);
    return most(this.#memory.slice(-MEMORY_WARM_UP)) - most(this.#memory.slice(0, MEMORY_WARM_UP));
  }

  #print(line: object): void {
    console.log(JSON.stringify(line));
  }
}
