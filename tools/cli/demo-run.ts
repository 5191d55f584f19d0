/** The demo: the same text twice, once with attention in memory and once with attention in a drive. */
import { DriveClient } from '../../client/index.ts';
import { controllerVendorArea } from '../../spec/identify.ts';
import { createBuiltInModel } from '../model/built-in.ts';
import { compareTokens, decodeInMemory } from '../model/comparison.ts';
import { type DecodedToken, stepCountOf } from '../model/decode.ts';
import { DriveDecoding } from '../model/drive-decoding.ts';
import type { LoadedModel } from '../model/source.ts';
import type { DemoOptions } from './commands/demo.ts';
import { type DriveRun, figures, type MemoryRun, printFurther, printResult, runText } from './demo-report.ts';
import { countRun } from './run-counts.ts';
import { paintFor, printJson, Progress } from './output.ts';
import { bytesText, durationText } from './quantity.ts';
import { startTemporaryDrive, type TemporaryDrive } from './temporary-drive.ts';

const MIB = 2 ** 20;
const driveFormat = {
  blockCapacityBytes: 16 * MIB,
  kvCapacityBytes: 64 * MIB,
  pageSizeBytes: 4096,
  channelCount: 8,
  diesPerChannel: 1,
};
export async function runDemo(options: DemoOptions): Promise<void> {
  const progress = new Progress();
  const paint = paintFor(process.stderr);
  let number = 0;
  const step = (name: string, text: string): void =>
    progress.done(`${paint.dim(String(++number))}  ${paint.bold(name.padEnd(8))} ${text}`);
  const loaded = createBuiltInModel();
  const prompt = Buffer.from(options.prompt);
  const steps = stepCountOf(loaded.model, options.tokens);

  progress.update('formatting a drive and starting its daemon …');
  const startMs = performance.now();
  const drive = await startTemporaryDrive({
    format: driveFormat,
    start: options.kernels === undefined ? [] : ['--kernels', options.kernels],
  });
  try {
    const { blockCapacityBytes, kvCapacityBytes, pageSizeBytes, channelCount } = driveFormat;
    const capacities = `${bytesText(blockCapacityBytes)} of blocks, ${bytesText(kvCapacityBytes)} for KV caches`;
    step('format', `${capacities}, ${bytesText(pageSizeBytes)} pages, ${channelCount} channels`);
    step('start', `daemon ${drive.processId} ready after ${durationText(performance.now() - startMs)}`);
    progress.update('decoding with attention in memory …');
    const memory = await runInMemory(loaded, prompt, steps);
    step('decode', `attention in memory     ${runText(memory)}`);
    const stored = await runInDrive(loaded, prompt, steps, drive, progress);
    step('decode', `attention in the drive  ${runText(stored)}`);
    progress.clear();
    if (options.json) printJson(figures(memory, stored));
    else printResult(memory, stored, loaded);
    const comparison = compareTokens('attention in memory', stored.tokens, memory.tokens);
    if (comparison.firstDifference !== null) process.exitCode = 1;
    if (!options.json) printFurther(drive, options.keep === true, stored.sequenceId);
  } finally {
    progress.clear();
    await drive.stop(options.keep === true);
  }
}

async function runInMemory(loaded: LoadedModel, prompt: Uint8Array, steps: number): Promise<MemoryRun> {
  const startMs = performance.now();
  const tokens = await decodeInMemory(loaded, prompt, steps, 'f32');
  return { tokens, elapsedMs: performance.now() - startMs };
}

async function runInDrive(
  loaded: LoadedModel,
  prompt: Uint8Array,
  stepCount: number,
  drive: TemporaryDrive,
  progress: Progress,
): Promise<DriveRun> {
  const client = await DriveClient.connect(drive.address);
  try {
    const options = { prompt, stepCount, elementType: 'f32', groupTokens: 0 } as const;
    const decoding = await DriveDecoding.open(loaded, options, client);
    const counted = await countRun(client, decoding);
    const startMs = performance.now();
    const tokens: DecodedToken[] = [];
    for await (const token of decoding.tokens()) {
      tokens.push(token);
      progress.update(`decoding with attention in the drive … token ${tokens.length} of ${stepCount}`);
    }
    const elapsedMs = performance.now() - startMs;
    await client.kv.flush();
    const counts = await counted();
    decoding.attention.release();
    const { kernelSet, kernelIsa, computeWorkerCount } = controllerVendorArea.decode(client.identity.vs);
    return {
      tokens,
      elapsedMs,
      counts,
      sequenceId: decoding.sequence.id,
      attendMs: decoding.attention.attendMs,
      kernels: `${kernelSet} (${kernelIsa})`,
      workerCount: computeWorkerCount,
      groupTokens: decoding.sequence.shape.groupTokens,
    };
  } finally {
    await client.close();
  }
}
