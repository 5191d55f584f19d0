/** What was played, and what was reached by it. Tallies of processes add up. */

export class Tally {
  sessions = 0;
  cases = 0;
  /** Cases that passed framing. */
  framed = 0;
  /** How often each cell was reached: a command and how it ended, as `cellOf` writes it. */
  readonly cells = new Map<string, number>();

  count(isFramed: boolean): void {
    this.cases++;
    if (isFramed) this.framed++;
  }

  reach(cell: string): void {
    this.cells.set(cell, (this.cells.get(cell) ?? 0) + 1);
  }

  add({ sessions, cases, framed, cells }: TallyData): void {
    this.sessions += sessions;
    this.cases += cases;
    this.framed += framed;
    for (const [cell, count] of cells) this.cells.set(cell, (this.cells.get(cell) ?? 0) + count);
  }

  /** For another process. */
  get data(): TallyData {
    const { sessions, cases, framed } = this;
    return { sessions, cases, framed, cells: [...this.cells] };
  }
}

export interface TallyData {
  readonly sessions: number;
  readonly cases: number;
  readonly framed: number;
  readonly cells: readonly (readonly [string, number])[];
}
