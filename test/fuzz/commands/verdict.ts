/** What may become of one command. */
import type { ErrorCode } from '../../../spec/errors.ts';
import type { Completion } from './fuzz-link.ts';

/**
 * A command without a fault succeeds, and one that has faults fails for one of them. `excuses` are ends that the command
 * itself does not explain: the drive is full, its flash fails, somebody else works on the same.
 */
export class Verdict {
  readonly faults = new Set<ErrorCode>();
  readonly excuses = new Set<ErrorCode>();
  /** As `excuses`, whatever the session is like. */
  readonly always = new Set<ErrorCode>();
  /** Nobody knows: what it works on was changed by several commands at once. Any of its statuses will do. */
  isUnsure = false;
  /** It may wait for ever. */
  isParked = false;
  /** What it works on, by name; commands that run at once are kept apart by these. */
  readonly touches: string[] = [];
  isWriter = false;
  /** Checks what a success has answered, and has the models follow it. */
  onSuccess: (completion: Completion) => void = () => undefined;
  /** Checks what a failure has answered, and has the models follow what it has done all the same. */
  onFailure: (code: ErrorCode, completion: Completion) => void = () => undefined;
  /** What was changed, if it ends in a way that leaves that open. */
  onUncertain: (completion?: Completion) => void = () => undefined;
  /** Its entry, its SGL and its opcode are right: the command itself looks at it. */
  isFramed = false;

  fault(...codes: readonly ErrorCode[]): this {
    for (const code of codes) this.faults.add(code);
    return this;
  }

  /** For what the session may have brought about. */
  excuse(...codes: readonly ErrorCode[]): this {
    for (const code of codes) this.excuses.add(code);
    return this;
  }

  excuseAlways(...codes: readonly ErrorCode[]): this {
    for (const code of codes) this.always.add(code);
    return this;
  }

  touch(...names: readonly string[]): this {
    this.touches.push(...names);
    return this;
  }
}
