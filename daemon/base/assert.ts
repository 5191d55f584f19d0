/** A broken invariant of our own: never an answer to bad input. It stops the drive. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Stays on in production. `message` says what should have held. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new InvariantError(message);
}
