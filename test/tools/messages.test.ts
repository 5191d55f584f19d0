/** What the command line says where something is refused, or does other than was asked: one line, with what is allowed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { AdminClient, DriveClient, locateDrive } from '../../client/index.ts';
import { attndrive, startAttndrive } from './command-line.ts';
import { DaemonProcess } from './daemon-process.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

function refused(args: readonly string[], message: RegExp, status = 1): void {
  const result = attndrive(args);
  assert.match(result.stderr, message, args.join(' '));
  assert.equal(result.stderr.trimEnd().split('\n').length, 1, `one line: ${result.stderr}`);
  assert.equal(result.status, status, args.join(' '));
}

test('what the drive refuses is explained with what it would allow', async () => {
  const daemon = new DaemonProcess();
  try {
    await daemon.start();
    const drive = ['--drive', daemon.folder];
    refused(['kv', 'show', '9', ...drive], /unknown sequence .*: the drive holds no sequences/);
    const decode = ['decode', '--prompt', 'the drive', '--no-compare', ...drive];
    const first = attndrive([...decode, '--tokens', '20']);
    assert.equal(first.status, 0, first.stderr);
    assert.match(first.stderr, /no page is full before 64 tokens: a new sequence with --group-tokens 8 fills some/);
    assert.match(first.stderr, /go on {3}attndrive decode .* --tokens 40 --sequence 1/);
    refused(['kv', 'show', '9', ...drive], /unknown sequence .*: the drive holds sequence 1$/m);
    refused(['kv', 'fork', '1', '--tokens', '21', ...drive], /--tokens 21; .* 0 to 20 are allowed/);
    refused(['kv', 'truncate', '1', '21', ...drive], /token out of range .* 20 tokens in each layer/);
    refused(['kv', 'read', '1', '--layer', '4', '--output', '/dev/null', ...drive], /has layers 0 to 3/);
    refused(['id-ns', '-n', '7', ...drive], /namespace 7.*allowed: 1 \(blocks\), 2 \(KV cache\)/);
    refused(['attend', '--sequence', '1', '--token-end', '21', ...drive], /token out of range .* 20 tokens in layer 0/);
    refused([...decode, '--sequence', '1', '--kv-dtype', 'f16'], /--kv-dtype f16: sequence 1 is stored as f32/);
    refused([...decode, '--sequence', '1', '--group-tokens', '16'], /--group-tokens 16: sequence 1 has 64/);
  } finally {
    await daemon.remove();
  }
});

test('what holds nothing is said to hold nothing', async () => {
  const daemon = new DaemonProcess();
  try {
    await daemon.start();
    const client = await DriveClient.connect(locateDrive(daemon.folder).address);
    const { id } = await client.kv.create({ layerCount: 1, kvHeadCount: 1, headDimK: 64, elementTypeK: 'f32' });
    await client.close();
    const { stdout } = attndrive(['attend', '--sequence', String(id), '--drive', daemon.folder]);
    assert.match(stdout, /^output +: zeros: no token was attended to$/m);
    assert.doesNotMatch(stdout, /Infinity/);
    await daemon.end('SIGTERM');
    assert.match(attndrive(['check', daemon.folder]).stdout, /^pages in use +: none$/m);
  } finally {
    await daemon.remove();
  }
});

test('decoding ends at the context, and then no longer text is suggested', async () => {
  const daemon = new DaemonProcess();
  try {
    await daemon.start();
    const { stderr, status } = attndrive(['decode', '--tokens', '2000', '--no-compare', '--drive', daemon.folder]);
    assert.equal(status, 0, stderr);
    assert.match(stderr, /--tokens 2000: decoding stops at 1024 tokens, the length of the model's context/);
    assert.match(stderr, /it holds 1024 tokens, all of the model's context/);
    assert.doesNotMatch(stderr, /go on/);
  } finally {
    await daemon.remove();
  }
});

test('a full drive says how full, and how to free space instead of how to go on', async () => {
  const daemon = new DaemonProcess('1MiB');
  try {
    await daemon.start();
    refused(
      ['decode', '--tokens', '1024', '--group-tokens', '16', '--no-compare', '--drive', daemon.folder],
      /capacity exceeded .* for KV caches are in use; free some .*; free it with: attndrive kv reclaim 1 --drive/,
    );
  } finally {
    await daemon.remove();
  }
});

test('the counts of a run leave out what others do with the drive', async () => {
  const daemon = new DaemonProcess();
  try {
    await daemon.start();
    const decode = ['decode', '--tokens', '40', '--group-tokens', '16', '--no-compare', '--json'];
    const other = startAttndrive(['decode', '--tokens', '1024', '--drive', daemon.folder]);
    await once(other.stdout, 'data');
    const run = () => JSON.parse(attndrive([...decode, '--drive', daemon.folder]).stderr) as Record<string, number>;
    const { flashTokens = 0, bufferedTokens = 0, pagesRead, pagesProgrammed } = run();
    // 4 layers, 40 steps; from step 16 on 16 tokens lie in flash, from step 32 on 32.
    assert.equal(flashTokens + bufferedTokens, (4 * 40 * 41) / 2);
    assert.equal(pagesProgrammed, 2 * 4 * 4 * 2);
    assert.equal(pagesRead, (flashTokens / 16) * 4 * 2);
    other.kill('SIGKILL');
  } finally {
    await daemon.remove();
  }
});

test('a dead drive does not hide a live one from list', async () => {
  const live = new DaemonProcess();
  const dead = new DaemonProcess();
  try {
    await live.start();
    await dead.start();
    await dead.end('SIGKILL');
    const shared = mkdtempSync(join(tmpdir(), 'attndrive-list-'));
    try {
      for (const { runtimeFolder } of [live, dead])
        cpSync(runtimeFolder, shared, { recursive: true, filter: notSocket });
      const { stdout, stderr, status } = attndrive(['list'], { RUNTIME_DIRECTORY: shared });
      assert.equal(status, 0, stderr);
      assert.equal(stdout.trimEnd().split('\n').length, 4, stdout);
      assert.match(stderr, new RegExp(`${dead.folder} .* is gone; start it with "attndrive start`));
    } finally {
      rmSync(shared, { recursive: true });
    }
  } finally {
    await live.remove();
    await dead.remove();
  }
});

const notSocket = (path: string): boolean => !/\.sock$|regions/.test(path);

test('the control plane tells options as their user would write them', async () => {
  const daemon = new DaemonProcess();
  try {
    await daemon.start(['--http', '127.0.0.1:0', '--workers', '1']);
    const admin = new AdminClient(locateDrive(daemon.folder).adminAddress ?? '');
    const { configuration } = await admin.drive();
    await admin.close();
    const { tcp, http, workers, group, verify } = configuration;
    const wanted = { tcp: 'off', http: '127.0.0.1:0', workers: '1', group: 'none', verify: 'first-use' };
    assert.deepEqual({ tcp, http, workers, group, verify }, wanted);
  } finally {
    await daemon.remove();
  }
});

test('missing and excessive sizes are named together', () => {
  refused(['format', 'x'], /--block-capacity SIZE and --kv-capacity SIZE missing/, 2);
  refused(['format', 'x', '--kv-capacity', '1GiB', '--block-capacity', '17TiB'], /largest size is 16TiB/, 2);
  refused(['demo', '--kernels', 'x'], /Allowed choices are auto, native, wasm, reference/, 2);
});

test('without packages the launcher and the build say what to run', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attndrive-bare-'));
  try {
    cpSync(join(root, 'tools/build'), join(folder, 'tools/build'), { recursive: true });
    cpSync(join(root, 'tools/cli/attndrive.mjs'), join(folder, 'tools/cli/attndrive.mjs'));
    const run = (file: string) => spawnSync(process.execPath, [file], { cwd: folder, encoding: 'utf8' });
    const oneLine = (file: string): string => {
      const { status, stderr } = run(file);
      assert.equal(status, 1);
      assert.match(stderr, /^attndrive: [^\n]*run "npm ci"[^\n]*\n$/);
      return stderr;
    };
    oneLine('tools/build/build.mjs');
    assert.match(oneLine('tools/cli/attndrive.mjs'), /not built yet/);
    mkdirSync(join(folder, '.build/tools/cli'), { recursive: true });
    writeFileSync(join(folder, '.build/tools/cli/main.js'), "import 'commander';\n");
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    assert.match(oneLine('tools/cli/attndrive.mjs'), /node_modules is missing/);
    mkdirSync(join(folder, 'node_modules'));
    assert.match(oneLine('tools/cli/attndrive.mjs'), /a package is missing/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
