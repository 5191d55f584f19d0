/** Statuses of `spec/command-statuses.ts` that no fuzzer can bring about, and why. */

interface Reason {
  readonly row: RegExp;
  readonly status: RegExp;
  readonly why: string;
}

const reasons: readonly Reason[] = [];

/** Why a command never ends with a status here; undefined: it can. */
export const unreached = (row: string, status: string): string | undefined =>
  reasons.find((reason) => reason.row.test(row) && reason.status.test(status))?.why;
