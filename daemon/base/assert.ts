/** A broken invariant of our own: never an answer to bad input. It stops the drive. */
export class InvariantError extends Error {
  override readonly name = 'InvariantError';
}

/** Stays on in production. `message` says what should have held; on hot paths a function, so that it costs nothing. */
export function assert(condition: boolean, message: string | (() => string)): asserts condition {
  if (!condition) throw new InvariantError(typeof message === 'string' ? message : message());
}
