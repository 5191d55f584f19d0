/** A place where a test can hold compute workers: two words of shared memory. */
export const gateWords = {
  /** 1: a worker waits here before its next job. */
  closed: 0,
  /** Workers that came while it was closed. */
  arrivals: 1,
} as const;

/** Waits while the gate is closed. */
export function passGate(gate: Int32Array): void {
  if (Atomics.load(gate, gateWords.closed) === 0) return;
  Atomics.add(gate, gateWords.arrivals, 1);
  Atomics.wait(gate, gateWords.closed, 1);
}
