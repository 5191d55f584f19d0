/** Measuring several things against each other in one run. */
import { median } from '../cli/quantity.ts';

export interface Contender {
  readonly name: string;
  /** Called before every timed run, outside its time. */
  prepare?(round: number): Promise<void> | void;
  run(round: number): Promise<unknown>;
}

export interface Measured {
  readonly medianMs: number;
  readonly samples: readonly number[];
}

/**
 * Runs the contenders in turn, round by round, so that a machine that gets slower gets slower for all of them. The
 * first round warms up and does not count.
 */
export async function interleave(
  rounds: number,
  contenders: readonly Contender[],
  onRound: (round: number) => void = () => undefined,
  onRun: (round: number, name: string) => void = () => undefined,
): Promise<Map<string, Measured>> {
  const samples = new Map<string, number[]>(contenders.map(({ name }) => [name, []]));
  for (let round = 0; round <= rounds; round++) {
    onRound(round);
    for (const contender of contenders) {
      await contender.prepare?.(round);
      const startMs = performance.now();
      await contender.run(round);
      const elapsedMs = performance.now() - startMs;
      onRun(round, contender.name);
      if (round > 0) samples.get(contender.name)?.push(elapsedMs);
    }
  }
  return new Map([...samples].map(([name, values]) => [name, { medianMs: median(values), samples: values }]));
}
