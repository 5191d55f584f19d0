import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createBuiltInModel } from '../../tools/model/built-in.ts';
import { attndrive, startAttndrive } from './command-line.ts';
import { DaemonProcess } from './daemon-process.ts';
import { publishedModel, publishedModelMissing } from './published-model.ts';

interface Summary {
  readonly sequence: number;
  readonly tokens: number;
  readonly storedTokens: number;
  readonly pagesProgrammed: number;
  readonly pagesRead: number;
  readonly flashTokens: number;
  readonly bufferedTokens: number;
  readonly comparisons: { readonly against: string; readonly firstDifference: null | object }[];
}

const published = ['--model', publishedModel.checkpoint, '--tokenizer', publishedModel.tokenizer, '--prompt', ''];
const builtIn = ['--prompt', 'the drive'];
const skipPublished = publishedModelMissing;
const native = fileURLToPath(new URL('../../daemon/kernels/native/attndrive.node', import.meta.url));

function decode(daemon: DaemonProcess, args: readonly string[]) {
  const result = attndrive(['decode', '--drive', daemon.folder, '--group-tokens', '16', '--json', ...args]);
  assert.equal(result.status, 0, result.stderr);
  return { text: result.stdout, summary: JSON.parse(result.stderr) as Summary };
}

const texts = new Map<number, string>();

/** What the built-in model writes in so many steps. */
function inMemory(steps: number): string {
  const args = ['decode', '--attention', 'memory', ...builtIn, '--tokens', String(steps)];
  const text = texts.get(steps) ?? attndrive(args).stdout;
  texts.set(steps, text);
  return text;
}

async function withDaemon(work: (daemon: DaemonProcess) => Promise<void>): Promise<void> {
  const daemon = new DaemonProcess();
  try {
    await work(daemon);
  } finally {
    await daemon.remove();
  }
}

for (const kernels of ['native', 'wasm', 'reference']) {
  const missing =
    kernels === 'native' && !existsSync(native) ? 'SKIPPED: native kernels are not built (no compiler?)' : false;
  test(`decoded through flash, ${kernels} kernels: same text, and it really was flash`, { skip: missing }, async () => {
    await withDaemon(async (daemon) => {
      await daemon.start(['--kernels', kernels]);
      const { text, summary } = decode(daemon, [...builtIn, '--tokens', '200']);
      assert.equal(text, inMemory(200));
      assert.deepEqual(
        summary.comparisons.map(({ firstDifference }) => firstDifference),
        [null],
      );
      checkFlash(summary, createBuiltInModel().model.shape);
      if (skipPublished === false) {
        const stories = decode(daemon, [...published, '--no-compare', '--tokens', '200']);
        assert.equal(stories.text, `${publishedModel.text}\n`);
        checkFlash(stories.summary, { layerCount: 5, kvHeadCount: 4 });
      }
      assert.equal(await daemon.end('SIGTERM'), 0, daemon.said);
    });
  });
}

/** 200 tokens in groups of 16: 12 whole groups of K and of V in every head of every layer. */
function checkFlash(summary: Summary, shape: { readonly layerCount: number; readonly kvHeadCount: number }): void {
  const streams = shape.layerCount * shape.kvHeadCount * 2;
  assert.equal(summary.pagesProgrammed, 12 * streams);
  assert.ok(summary.pagesRead > summary.pagesProgrammed, `${summary.pagesRead} pages read`);
  const attended = (200 * 201 * shape.layerCount) / 2;
  assert.equal(summary.flashTokens + summary.bufferedTokens, attended);
  const share = summary.flashTokens / attended;
  assert.ok(share >= 0.75, `${share} of the tokens came from flash`);
}

for (const elementType of ['f16', 'bf16', 'int8', 'int4']) {
  test(`${elementType} in the drive is ${elementType} in memory; where f32 leaves it is told`, async () => {
    await withDaemon(async (daemon) => {
      await daemon.start();
      const { summary } = decode(daemon, [...builtIn, '--tokens', '200', '--kv-dtype', elementType]);
      assert.deepEqual(
        summary.comparisons.map(({ against }) => against),
        ['attention in memory, f32', `attention in memory, ${elementType}`],
      );
      assert.equal(summary.comparisons[1]?.firstDifference, null);
      if (elementType === 'bf16' || elementType === 'int4')
        assert.notEqual(summary.comparisons[0]?.firstDifference, null);
    });
  });
}

for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
  test(`stopped at token 100 by ${signal}, started again, the stored sequence goes on to the same text`, async () => {
    await withDaemon(async (daemon) => {
      await daemon.start();
      const { summary } = decode(daemon, [...builtIn, '--no-compare', '--tokens', '100']);
      assert.equal(await daemon.end(signal), signal === 'SIGTERM' ? 0 : null, daemon.said);
      await daemon.start();
      const again = decode(daemon, [
        ...builtIn,
        '--no-compare',
        '--tokens',
        '200',
        '--sequence',
        String(summary.sequence),
      ]);
      assert.equal(again.text, inMemory(200));
      assert.equal(again.summary.storedTokens, 100);
    });
  });
}

test('killed in the middle: the error names the sequence, and it goes on to the same text', async () => {
  await withDaemon(async (daemon) => {
    await daemon.start();
    const args = ['decode', '--drive', daemon.folder, '--group-tokens', '16', ...builtIn, '--tokens', '1024'];
    const child = startAttndrive(args);
    let printed = '';
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    child.stdout.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
      if (printed.length > 300) void daemon.end('SIGKILL');
    });
    const [status] = (await once(child, 'close')) as [number];
    assert.equal(status, 1, said);
    const id = /sequence (\d+) keeps what is durable; go on with: attndrive decode .* --sequence \1/.exec(said)?.[1];
    assert.ok(id !== undefined, said);
    assert.ok(inMemory(300).startsWith(printed.trimEnd().slice(0, 300)), printed);
    await daemon.start();
    const again = decode(daemon, [...builtIn, '--no-compare', '--tokens', '300', '--sequence', id]);
    assert.equal(again.text, inMemory(300));
  });
});

test('a bit flipped in a programmed page is a media error that names the page, never a wrong text', async () => {
  await withDaemon(async (daemon) => {
    await daemon.start();
    const { summary } = decode(daemon, [...builtIn, '--no-compare', '--tokens', '100']);
    await daemon.end('SIGTERM');
    flipBit(join(daemon.folder, 'media/cells.bin'));
    await daemon.start();
    const args = [
      'decode',
      '--drive',
      daemon.folder,
      ...builtIn,
      '--tokens',
      '200',
      '--sequence',
      String(summary.sequence),
    ];
    const { status, stdout, stderr } = attndrive(args);
    assert.equal(status, 1);
    assert.match(
      stderr,
      /unrecovered read error.*: flash page \d+ \(superblock \d+\); .* free it with: attndrive kv reclaim/,
    );
    assert.ok(inMemory(200).startsWith(stdout.trimEnd()), stdout);
  });
});

const HEADER_BYTES = 65_536;
const PAGE_BYTES = 4096;

/** In the first page after the header that holds anything but zeros. */
function flipBit(path: string): void {
  const file = openSync(path, 'r+');
  try {
    const page = Buffer.alloc(PAGE_BYTES);
    for (let at = HEADER_BYTES; readSync(file, page, 0, PAGE_BYTES, at) === PAGE_BYTES; at += PAGE_BYTES) {
      const byte = page.findIndex((value) => value !== 0);
      if (byte < 0) continue;
      writeSync(file, Uint8Array.of(page[byte]! ^ 0x10), 0, 1, at + byte);
      return;
    }
    assert.fail('no programmed page');
  } finally {
    closeSync(file);
  }
}
