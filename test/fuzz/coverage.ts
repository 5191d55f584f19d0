/** Which lines and branches of the drive were run, by V8's own counts. Processes add up. */
import { readdirSync, readFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const BUILD = fileURLToPath(new URL('../../', import.meta.url));
/** What is fuzzed lies here; kernels are run too, but have fuzzers of their own kind in their tests. */
const FOLDERS = ['daemon', 'spec'];

interface Range {
  readonly startOffset: number;
  readonly endOffset: number;
  readonly count: number;
}

interface ScriptCoverage {
  readonly url: string;
  readonly functions: readonly { readonly ranges: readonly Range[] }[];
}

/** Of one script: its functions, each with its blocks, as V8 tells them. */
export interface CoveredScript {
  /** Below the build folder. */
  readonly path: string;
  readonly functions: readonly (readonly Range[])[];
}

/** Counts what this process runs from now on. */
export class CoverageProbe {
  readonly #session = new Session();

  async start(): Promise<void> {
    this.#session.connect();
    await this.#session.post('Profiler.enable');
    await this.#session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  }

  /** Since the last call. */
  async take(): Promise<CoveredScript[]> {
    const { result } = (await this.#session.post('Profiler.takePreciseCoverage')) as unknown as {
      result: ScriptCoverage[];
    };
    return result
      .filter(({ url }) => url.startsWith('file:'))
      .map(({ url, functions }) => ({
        path: relative(BUILD, fileURLToPath(url)),
        functions: functions.map(({ ranges }) => ranges),
      }))
      .filter(({ path }) => FOLDERS.some((folder) => path.startsWith(`${folder}/`)));
  }
}

export interface RoomCoverage {
  readonly room: string;
  readonly lines: number;
  readonly linesRun: number;
  readonly branches: number;
  readonly branchesRun: number;
}

class ScriptRuns {
  /** Of each character: whether it was run. */
  readonly run: Uint8Array;
  /** Where blocks begin and end that V8 counts apart. */
  readonly blocks = new Map<string, number>();

  constructor(size: number) {
    this.run = new Uint8Array(size);
  }

  add(functions: CoveredScript['functions']): void {
    const own = new Uint8Array(this.run.length);
    // Outer functions come first: what lies deeper says better.
    const ranges = functions.flat().sort((a, b) => a.startOffset - b.startOffset || b.endOffset - a.endOffset);
    for (const { startOffset, endOffset, count } of ranges) {
      own.fill(count > 0 ? 1 : 0, startOffset, endOffset);
      this.blocks.set(`${startOffset} ${endOffset}`, startOffset);
    }
    for (let i = 0; i < own.length; i++) this.run[i]! |= own[i]!;
  }
}

export class CoverageReport {
  readonly #scripts = new Map<string, ScriptRuns>();

  add(scripts: readonly CoveredScript[]): void {
    for (const { path, functions } of scripts) {
      let runs = this.#scripts.get(path);
      if (runs === undefined)
        this.#scripts.set(path, (runs = new ScriptRuns(readFileSync(join(BUILD, path), 'utf8').length)));
      runs.add(functions);
    }
  }

  /** Rooms of which at least one script was loaded, by name. Scripts of theirs that were not loaded count as not run. */
  rooms(): RoomCoverage[] {
    const rooms = new Map<string, { lines: number; linesRun: number; branches: number; branchesRun: number }>();
    for (const path of scriptsBelow(FOLDERS)) {
      const room = roomOf(path);
      const sums = rooms.get(room) ?? { lines: 0, linesRun: 0, branches: 0, branchesRun: 0 };
      rooms.set(room, sums);
      const runs = this.#scripts.get(path);
      for (const { start, end } of codeLines(readFileSync(join(BUILD, path), 'utf8'))) {
        sums.lines++;
        if (runs?.run.subarray(start, end).includes(1)) sums.linesRun++;
      }
      for (const start of runs?.blocks.values() ?? []) {
        sums.branches++;
        if (runs?.run[start] === 1) sums.branchesRun++;
      }
    }
    return [...rooms]
      .map(([room, sums]) => ({ room, ...sums }))
      .filter(({ linesRun }) => linesRun > 0)
      .sort((a, b) => (a.room < b.room ? -1 : 1));
  }
}

const scriptsBelow = (folders: readonly string[]): string[] =>
  folders.flatMap((folder) =>
    readdirSync(join(BUILD, folder), { recursive: true })
      .map((path) => `${folder}/${String(path)}`)
      .filter((path) => path.endsWith('.js')),
  );

/** `daemon/kv`; scripts right below `daemon` are the composition root. */
function roomOf(path: string): string {
  const parts = path.split('/');
  return parts[0] === 'daemon' && parts.length > 2 ? `daemon/${parts[1]}` : parts[0]!;
}

/** Lines that hold code, without the blanks around it. */
function* codeLines(text: string): Iterable<{ start: number; end: number }> {
  let at = 0;
  for (const line of text.split('\n')) {
    const code = line.trim();
    const start = at + line.indexOf(code);
    if (code !== '' && !/^(\/\/|\/\*|\*|[{}()[\];,]+$)/.test(code)) yield { start, end: start + code.length };
    at += line.length + 1;
  }
}
