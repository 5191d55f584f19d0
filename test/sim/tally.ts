/** What histories have done, in numbers. */
export interface Tally {
  powerCuts: number;
  kills: number;
  shutdowns: number;
  commands: number;
  /** Of hosts and of the drive itself, whose device times were computed again. */
  timedJobs: number;
  diskSteps: number;
  refusals: number;
  readFailures: number;
  virtualSeconds: number;
  /** Power cuts by what the drive was doing. */
  cutsWhile: Record<string, number>;
  /** Power cuts by the step of the disk that they came before; some come at none. */
  cutsBefore: Record<string, number>;
  /** Most power cuts in a row, each of them before the drive was open again. */
  cutsInRowMax: number;
}

export const newTally = (): Tally => ({
  powerCuts: 0,
  kills: 0,
  shutdowns: 0,
  commands: 0,
  timedJobs: 0,
  diskSteps: 0,
  refusals: 0,
  readFailures: 0,
  virtualSeconds: 0,
  cutsWhile: {},
  cutsBefore: {},
  cutsInRowMax: 0,
});

export function count(counts: Record<string, number>, name: string, by = 1): void {
  counts[name] = (counts[name] ?? 0) + by;
}

export function addTally(sum: Tally, other: Tally): void {
  for (const name of [
    'powerCuts',
    'kills',
    'shutdowns',
    'commands',
    'timedJobs',
    'diskSteps',
    'refusals',
    'readFailures',
    'virtualSeconds',
  ] as const) {
    sum[name] += other[name];
  }
  for (const name of ['cutsWhile', 'cutsBefore'] as const) {
    for (const [what, times] of Object.entries(other[name])) count(sum[name], what, times);
  }
  sum.cutsInRowMax = Math.max(sum.cutsInRowMax, other.cutsInRowMax);
}

/** "12 program begins, 3 header begins", most first. */
export const describeCounts = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .sort(([, a], [, b]) => b - a)
    .map(([name, times]) => `${times} ${name}`)
    .join(', ');
