// What neither the compiler nor the linter looks at: file names, file lengths, room READMEs, lines of prose-free code.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { basename, dirname, extname, join } from 'node:path';

const LINE_COUNT_MAX = 500;
/** The formatter keeps code to 120; what is beyond is comments and strings, which it leaves alone. */
const LINE_COLUMNS_MAX = 130;
const CODE = new Set(['.ts', '.mjs', '.cc', '.h', '.sh']);
/** Names that say nothing about what a file holds. */
const EMPTY_NAMES = /^(utils?|helpers?|common|misc|managers?|shared)$|[-.](utils?|helpers?|manager)$/;
const KEBAB_CASE = /^[a-z0-9]+(-[a-z0-9]+)*(\.(test|d))?$/;
const BLOB_BYTES_MAX = 512 * 1024;

/** Problems as lines `path: what`. `root` is the repository. */
export function tidy(root) {
  const problems = [];
  for (const path of repositoryFiles(root)) {
    for (const problem of [...nameProblems(path), ...contentProblems(root, path)]) problems.push(`${path}: ${problem}`);
  }
  return [...problems, ...roomProblems(root)];
}

/** Tracked files and new ones that git does not ignore; without git, every file outside .build and node_modules. */
function repositoryFiles(root) {
  try {
    const listed = execFileSync('git', ['ls-files', '-co', '--exclude-standard'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return listed.split('\n').filter((path) => path !== '' && existsSync(join(root, path)));
  } catch {
    return readdirSync(root, { recursive: true })
      .map(String)
      .filter((path) => !/^(node_modules|\.build|\.git)(\/|$)/.test(path) && statSync(join(root, path)).isFile());
  }
}

function nameProblems(path) {
  if (!CODE.has(extname(path))) return [];
  const name = basename(path, extname(path));
  const problems = [];
  if (EMPTY_NAMES.test(name) || EMPTY_NAMES.test(basename(dirname(path))))
    problems.push('the name says nothing: name the thing');
  if (!KEBAB_CASE.test(name)) problems.push('file names are kebab-case');
  return problems;
}

function contentProblems(root, path) {
  const file = join(root, path);
  const { size } = statSync(file);
  if (size > BLOB_BYTES_MAX) return [`${size} bytes, at most ${BLOB_BYTES_MAX}`];
  if (!CODE.has(extname(path)) && extname(path) !== '.md') return [];
  const text = readFileSync(file, 'utf8');
  if (extname(path) === '.md') return /^(<!--[^]*?-->\s*)?# /.test(text) ? [] : ['a page starts with a title'];
  const lines = text.split('\n');
  const problems = [];
  if (lines.length - 1 > LINE_COUNT_MAX) problems.push(`${lines.length - 1} lines, at most ${LINE_COUNT_MAX}`);
  const long = lines.findIndex((line) => line.length > LINE_COLUMNS_MAX && !/https?:\/\//.test(line));
  if (long >= 0) problems.push(`line ${long + 1} has ${lines[long].length} columns, at most ${LINE_COLUMNS_MAX}`);
  const leftover = lines.findIndex((line) => /\b(FIX[M]E|X[X]X)\b/.test(line));
  if (leftover >= 0) problems.push(`line ${leftover + 1}: finish it or file it`);
  return problems;
}

function roomProblems(root) {
  const rooms = ['spec', 'daemon', 'client', 'tools'].filter((room) => existsSync(join(root, room)));
  const inner = readdirSync(join(root, 'daemon'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...rooms, ...inner.map((entry) => `daemon/${entry.name}`)]
    .filter((room) => !existsSync(join(root, room, 'README.md')))
    .map((room) => `${room}: has no README.md`);
}
