/** Text and JSON on standard output; progress on standard error. */
import { percentText } from './quantity.ts';

/** JSON in which 64-bit values that a JSON number cannot hold are decimal strings, and bytes are hexadecimal. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, (_key, part: unknown) => jsonPart(part), 2)}\n`);
}

export function jsonPart(part: unknown): unknown {
  if (typeof part === 'bigint') return part <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(part) : String(part);
  if (part instanceof Uint8Array) return Buffer.from(part).toString('hex');
  return part;
}

export function printLine(text = ''): void {
  process.stdout.write(`${text}\n`);
}

/** `name : value` lines with the names padded to one width. */
export function printFields(fields: readonly (readonly [string, string | number | bigint])[], width = 0): void {
  const column = Math.max(width, ...fields.map(([name]) => name.length));
  for (const [name, value] of fields) printLine(`${name.padEnd(column)} : ${value}`);
}

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

/** A table with a title line; columns as wide as their widest cell. */
export function printTable(columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const widths = columns.map(({ title }, i) => Math.max(title.length, ...rows.map((row) => (row[i] ?? '').length)));
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ align }, i) =>
        align === 'right' ? (cells[i] ?? '').padStart(widths[i]!) : (cells[i] ?? '').padEnd(widths[i]!),
      )
      .join('  ')
      .trimEnd();
  printLine(line(columns.map(({ title }) => title)));
  printLine(widths.map((width) => '-'.repeat(width)).join('  '));
  for (const row of rows) printLine(line(row));
}

/** Colours for a stream; none where it is no terminal or NO_COLOR is set. */
export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  green(text: string): string;
  red(text: string): string;
  cyan(text: string): string;
}

export function paintFor(stream: NodeJS.WriteStream): Paint {
  const forced = process.env['FORCE_COLOR'] !== undefined && process.env['FORCE_COLOR'] !== '0';
  const coloured = forced || (stream.isTTY && process.env['NO_COLOR'] === undefined && process.env['TERM'] !== 'dumb');
  const paint = (code: number) => (text: string) => (coloured ? `\u001b[${code}m${text}\u001b[0m` : text);
  return { bold: paint(1), dim: paint(2), green: paint(32), red: paint(31), cyan: paint(36) };
}

const BAR_CHARACTERS = 24;

/** "checking  ██████······  52.0 %  1.3 GiB of 2.5 GiB". `share`: 0 to 1. */
export function barText(verb: string, share: number, amounts: string): string {
  const filled = Math.round(share * BAR_CHARACTERS);
  const bar = '█'.repeat(filled) + '·'.repeat(BAR_CHARACTERS - filled);
  return `${verb}  ${bar}  ${percentText(share)}  ${amounts}`;
}

/** Progress on standard error: one line that renews itself on a terminal, and only the milestones elsewhere. */
export class Progress {
  readonly #stream = process.stderr;
  #shown = false;
  #shownAtMs = 0;

  /** What is going on; shown on a terminal only, ten times a second at most. */
  update(text: string): void {
    const nowMs = performance.now();
    if (!this.#stream.isTTY || nowMs - this.#shownAtMs < 100) return;
    this.#shownAtMs = nowMs;
    this.#shown = true;
    this.#stream.write(`\r\u001b[2K${text.slice(0, (this.#stream.columns ?? 80) - 1)}`);
  }

  /** A line that stays. */
  done(text: string): void {
    this.clear();
    this.#stream.write(`${text}\n`);
  }

  clear(): void {
    if (this.#shown) this.#stream.write('\r\u001b[2K');
    this.#shown = false;
  }
}
