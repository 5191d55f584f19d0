import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createProgram } from '../../tools/cli/main.ts';
import { attndrive, launcher } from './command-line.ts';
import { checkpointBytes, tinyHeader, tokenizerBytes } from './tiny-model.ts';

function refused(args: readonly string[], status: number, message: RegExp): void {
  const result = attndrive(args);
  assert.match(result.stderr, message, args.join(' '));
  assert.equal(result.stderr.trimEnd().split('\n').length, 1, `one line on standard error: ${result.stderr}`);
  assert.match(result.stderr, /^attndrive: /);
  assert.equal(result.status, status, args.join(' '));
  assert.equal(result.stdout, '');
}

test('wrong usage is one line and exit status 2', () => {
  refused(['nonsense'], 2, /unknown command 'nonsense'/);
  refused(['decode', '--tokens', 'many'], 2, /--tokens <N>' argument 'many' is invalid. Whole numbers from 0/);
  refused(['decode', '--attention', 'gpu'], 2, /Allowed choices are drive, memory/);
  refused(['decode', '--attention', 'memory', '--sequence', '3'], 2, /--sequence needs --attention drive/);
  refused(['kv', 'show', '0'], 2, /A sequence id is a number from 1/);
  refused(['kv', 'show'], 2, /missing required argument 'ID'/);
  refused(['id-ns', '-n', '0'], 2, /Whole numbers from 1/);
});

test('the manual page has every option of format and start', () => {
  const page = readFileSync(new URL('../../../tools/cli/attndrive.1', import.meta.url), 'utf8').replaceAll('\\-', '-');
  for (const name of ['format', 'start']) {
    const command = createProgram().commands.find((one) => one.name() === name)!;
    const missing = command.options.flatMap(({ long }) => (page.includes(long!) ? [] : [long]));
    assert.deepEqual(missing, [], name);
  }
});

test('without a running drive the error says what to start', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-cli-'));
  try {
    const environment = { XDG_RUNTIME_DIR: folder, RUNTIME_DIRECTORY: folder };
    const { status, stderr } = attndrive(['id-ctrl', '--drive', folder], environment);
    assert.match(stderr, /^attndrive: no daemon serves .*; start it with "attndrive start /);
    assert.equal(status, 1);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('addresses that are none are refused', () => {
  refused(['list', '--drive', 'tcp:nowhere:99999'], 1, /tcp:nowhere:99999/);
  refused(['id-ctrl', '--drive', 'unix:/nowhere/nvme.sock'], 1, /\/nowhere\/nvme\.sock/);
  refused(['id-ctrl', '--drive', '/nowhere'], 1, /\/nowhere is no folder/);
});

test('files that are no model or not its tokenizer are named', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-cli-'));
  try {
    const model = join(folder, 'm.bin');
    const tokenizer = join(folder, 't.bin');
    const decode = ['decode', '--attention', 'memory', '--model', model, '--tokenizer', tokenizer];
    refused(decode, 1, /model .*m\.bin: no such file/);
    writeFileSync(model, checkpointBytes(tinyHeader, 1).subarray(0, 1000));
    refused(decode, 1, /model .*m\.bin: truncated: 1000 bytes, its header .* asks for \d+/);
    writeFileSync(model, checkpointBytes(tinyHeader, 1));
    writeFileSync(tokenizer, tokenizerBytes([]));
    refused(decode, 1, /tokenizer .*t\.bin: ends at token 259; the model has 300 tokens/);
    refused(decode.slice(0, 5), 1, /--model without --tokenizer/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('decode in memory prints the text and one line break, the rest goes to standard error', () => {
  const { status, stdout, stderr } = attndrive([
    'decode',
    '--attention',
    'memory',
    '--prompt',
    'the drive',
    '--tokens',
    '24',
  ]);
  assert.equal(stdout, 'the drive noshe she fuvi thi ni lunepa zu nai sho koshu te\n');
  assert.match(stderr, /24 tokens in .* tokens\/s\), attention in memory, f32/);
  assert.equal(status, 0);
});

test('a prompt that is no UTF-8 reaches the model as it was given', () => {
  const decode = `exec "${process.execPath}" "${launcher}" decode --attention memory --tokens 12 --prompt`;
  const shell = (prompt: string) => spawnSync('sh', ['-c', `${decode} "$(printf '${prompt}')"`], { encoding: 'utf8' });
  // One byte that starts no character is one token; U+FFFD, which Node makes of it, would be three.
  const stray = shell('a\\377');
  const replaced = shell('a\\357\\277\\275');
  assert.equal(stray.status, 0, stray.stderr);
  assert.notEqual(stray.stdout, replaced.stdout);
});

test('bf16 says where its text leaves that of f32', () => {
  const args = [
    'decode',
    '--attention',
    'memory',
    '--prompt',
    'the drive',
    '--tokens',
    '200',
    '--kv-dtype',
    'bf16',
    '--json',
  ];
  const summary = JSON.parse(attndrive(args).stderr) as { comparisons: { firstDifference: { position: number } }[] };
  const position = summary.comparisons[0]?.firstDifference.position ?? 0;
  assert.ok(position > 1 && position < 200, `first difference at ${position}`);
});

test('help of every command has an example', () => {
  for (const command of [
    'decode',
    'list',
    'id-ns',
    'smart-log',
    'endurance-log',
    'format-nvm',
    'stats',
    'attend',
    'kv',
  ]) {
    const { status, stdout } = attndrive([command, '--help']);
    assert.equal(status, 0, command);
    assert.match(stdout, /\n {2}\$ attndrive /, command);
  }
});
