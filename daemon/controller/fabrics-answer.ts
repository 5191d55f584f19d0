import type { ErrorCode } from '../../spec/errors.ts';

/** Completion of a Fabrics command, and what to do once it is on its way. */
export interface FabricsAnswer {
  readonly code: ErrorCode | undefined;
  readonly dw0: number;
  readonly dw1: number;
  readonly after?: () => void;
}

export const answer = (code: ErrorCode | undefined, dw0 = 0, dw1 = 0): FabricsAnswer => ({ code, dw0, dw1 });
