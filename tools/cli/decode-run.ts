/** What `decode` does: runs the text, and tells afterwards what it took. */
import { type DriveClient, DriveCommandError } from '../../client/index.ts';
import type { ElementType } from '../../spec/element-type.ts';
import {
  type Comparison,
  comparisonText,
  compareTokens,
  decodeInMemory as referenceTokens,
} from '../model/comparison.ts';
import { createCpuBackend } from '../model/cpu-backend.ts';
import { type DecodedToken, decodeGreedily, stepCountOf } from '../model/decode.ts';
import { DriveDecoding } from '../model/drive-decoding.ts';
import { createMemoryAttention } from '../model/memory-attention.ts';
import { loadModel, type LoadedModel } from '../model/source.ts';
import { CliError } from './cli-error.ts';
import type { DecodeCommandOptions } from './commands/decode.ts';
import { withDrive } from './connect.ts';
import { explainFailure } from './explain.ts';
import { jsonPart } from './output.ts';
import { promptBytes } from './prompt.ts';
import { bytesText, countText, durationText, median, percentText, timesText } from './quantity.ts';
import { countRun, type RunCounts } from './run-counts.ts';
import { TextWriter } from './text-writer.ts';

const say = (line: string): void => void process.stderr.write(`${line}\n`);

/** --attention memory. */
export async function decodeInMemory(options: DecodeCommandOptions): Promise<void> {
  const loaded = loadModel(options.model, options.tokenizer);
  const prompt = promptBytes(options.prompt);
  const { model } = loaded;
  const { kvDtype = 'f32' } = options;
  sayContextLimit(loaded, options);
  const writer = new TextWriter(stepCountOf(model, options.tokens));
  const attention = createMemoryAttention(model.shape, kvDtype);
  const modules = { ...loaded, backend: createCpuBackend(model), attention };
  for await (const token of decodeGreedily(prompt, options.tokens, modules)) writer.write(token);
  const elapsedMs = writer.elapsedMs;
  writer.finish();
  const types = kvDtype === 'f32' ? [] : (['f32'] as const);
  const comparisons = options.compare ? await compare(loaded, prompt, writer.tokens, options.tokens, types) : [];
  const rate = ratePerSecond(writer.tokens.length, elapsedMs);
  if (options.json) {
    sayJson({
      attention: 'memory',
      kvDtype,
      tokens: writer.tokens.length,
      tokensPerSecond: rate,
      comparisons,
    });
    return;
  }
  say(
    `${writer.tokens.length} tokens in ${durationText(elapsedMs)} (${rate.toFixed(0)} tokens/s), ` +
      `attention in ${attention.name}`,
  );
  for (const comparison of comparisons) say(`  compared   ${comparisonText(comparison)}`);
}

/** More steps than the model has positions are not run. */
function sayContextLimit({ model }: LoadedModel, { tokens, json }: DecodeCommandOptions): void {
  const { contextLength } = model.shape;
  if (tokens <= contextLength || json) return;
  say(`--tokens ${tokens}: decoding stops at ${contextLength} tokens, the length of the model's context`);
}

/** --attention drive. */
export async function decodeInDrive(options: DecodeCommandOptions): Promise<void> {
  const loaded = loadModel(options.model, options.tokenizer);
  await withDrive(options, (client) => decodeWith(client, loaded, options));
}

async function decodeWith(client: DriveClient, loaded: LoadedModel, options: DecodeCommandOptions): Promise<void> {
  const prompt = promptBytes(options.prompt);
  const decoding = await DriveDecoding.open(
    loaded,
    {
      prompt,
      stepCount: options.tokens,
      elementType: options.kvDtype,
      groupTokens: options.groupTokens ?? 0,
      sequenceId: options.sequence,
    },
    client,
  );
  const { id } = decoding.sequence;
  const counted = await countRun(client, decoding);
  sayContextLimit(loaded, options);
  if (decoding.storedTokenCount > 0 && !options.json) {
    const { elementTypeK } = decoding.sequence.shape;
    say(
      `sequence ${id} holds ${decoding.storedTokenCount} tokens as ${elementTypeK}: attending to them, then going on`,
    );
  }
  const writer = new TextWriter(decoding.stepCount);
  const interruption = new AbortController();
  const interrupt = (): void => interruption.abort();
  process.once('SIGINT', interrupt);
  let elapsedMs: number;
  try {
    for await (const token of decoding.tokens()) {
      writer.write(token);
      if (interruption.signal.aborted) break;
    }
    elapsedMs = writer.elapsedMs;
    // What was printed is durable when this command ends.
    await client.kv.flush();
    if (interruption.signal.aborted) throw new CliError('interrupted');
  } catch (error) {
    writer.finish();
    throw await stoppedError(error, writer, decoding, client, options);
  } finally {
    process.off('SIGINT', interrupt);
  }
  writer.finish();
  const counts = await counted();
  decoding.attention.release();
  const stored = decoding.sequence.shape.elementTypeK;
  const types: ElementType[] = stored === 'f32' ? ['f32'] : ['f32', stored];
  const comparisons = options.compare ? await compare(loaded, prompt, writer.tokens, options.tokens, types) : [];
  const summary: DriveSummary = {
    attention: 'drive',
    sequence: id,
    kvDtype: stored,
    groupTokens: decoding.sequence.shape.groupTokens,
    tokens: writer.tokens.length,
    contextLength: loaded.model.shape.contextLength,
    storedTokens: decoding.storedTokenCount,
    elapsedMs,
    tokensPerSecond: ratePerSecond(writer.tokens.length, elapsedMs),
    attendMsMedian: median(decoding.attention.attendMs),
    attendCount: decoding.attention.attendMs.length,
    ...counts,
    comparisons,
  };
  if (options.json) sayJson(summary);
  else saySummary(summary, options);
}

/** The cause, and how to go on where that can work: what the sequence held at the last flush is still there. */
async function stoppedError(
  error: unknown,
  writer: TextWriter,
  decoding: DriveDecoding,
  client: DriveClient,
  options: DecodeCommandOptions,
): Promise<CliError> {
  const { id } = decoding.sequence;
  const refused = error instanceof DriveCommandError;
  const text = error instanceof Error ? error.message : String(error);
  const cause = refused ? await explainFailure(error, client, options) : text;
  // What the drive refused once it refuses again: no space, a page that cannot be read.
  const further = refused
    ? `sequence ${id} keeps what it has; free it with: ${reclaimCommand(id, options)}`
    : `sequence ${id} keeps what is durable; go on with: ${continueCommand(id, options)}`;
  return new CliError(`stopped after ${writer.tokens.length} tokens: ${cause}; ${further}`);
}

const driveText = ({ drive }: DecodeCommandOptions): string => (drive === undefined ? '' : ` --drive ${drive}`);

const reclaimCommand = (id: bigint, options: DecodeCommandOptions): string =>
  `attndrive kv reclaim ${id}${driveText(options)}`;

function continueCommand(id: bigint, options: DecodeCommandOptions): string {
  const files = options.model === undefined ? '' : ` --model ${options.model} --tokenizer ${options.tokenizer}`;
  const prompt = JSON.stringify(options.prompt);
  return `attndrive decode${files} --prompt ${prompt} --tokens ${options.tokens} --sequence ${id}${driveText(options)}`;
}

interface DriveSummary extends RunCounts {
  readonly attention: 'drive';
  readonly sequence: bigint;
  readonly kvDtype: ElementType;
  readonly groupTokens: number;
  readonly tokens: number;
  readonly contextLength: number;
  readonly storedTokens: number;
  readonly elapsedMs: number;
  readonly tokensPerSecond: number;
  readonly attendMsMedian: number;
  readonly attendCount: number;
  readonly comparisons: readonly Comparison[];
}

function saySummary(summary: DriveSummary, options: DecodeCommandOptions): void {
  const { sequence, tokens, elapsedMs, tokensPerSecond, kvDtype, groupTokens } = summary;
  say(
    `${tokens} tokens in ${durationText(elapsedMs)} (${tokensPerSecond.toFixed(0)} tokens/s), attention in the drive`,
  );
  const line = (name: string, text: string): void => say(`  ${name.padEnd(10)} ${text}`);
  line('sequence', `${sequence} is kept, flushed: keys and values as ${kvDtype}, ${groupTokens} tokens per page`);
  line('', goOnText(summary, options));
  line('', `free    ${reclaimCommand(sequence, options)}`);
  line('flash', `${countText(summary.pagesProgrammed)} pages programmed, ${countText(summary.pagesRead)} pages read`);
  line('attended', attendedText(summary));
  if (summary.flashTokens === 0) line('', fewTokensText(summary));
  line('link', linkText(summary));
  line('time', `${durationText(summary.attendMsMedian)} per ATTN (median of ${countText(summary.attendCount)})`);
  for (const comparison of summary.comparisons) line('compared', comparisonText(comparison));
  const wrong = kvDtype === 'f32' && summary.comparisons.some(({ firstDifference }) => firstDifference !== null);
  if (wrong) say(F32_DIFFERS);
}

const F32_DIFFERS =
  'attndrive: warning: the tokens differ from those of attention in memory though keys and values are f32; ' +
  'that is right only where two tokens had nearly the same score';

/** More tokens than are stored, up to the model's context. */
function goOnText(
  { sequence, tokens, storedTokens, contextLength }: DriveSummary,
  options: DecodeCommandOptions,
): string {
  const stored = Math.max(tokens, storedTokens);
  if (stored >= contextLength) return `full    it holds ${stored} tokens, all of the model's context`;
  return `go on   ${continueCommand(sequence, { ...options, tokens: Math.min(2 * stored, contextLength) })}`;
}

function fewTokensText({ groupTokens, tokens, storedTokens, sequence }: DriveSummary): string {
  const held = Math.max(tokens, storedTokens);
  if (held > groupTokens) return `sequence ${sequence} had no pages to read yet`;
  const smaller = GROUP_TOKENS_SUGGESTED.find((count) => 2 * count <= held);
  const hint =
    smaller === undefined ? 'decode more tokens' : `a new sequence with --group-tokens ${smaller} fills some`;
  return `no page is full before ${groupTokens} tokens: ${hint}`;
}

const GROUP_TOKENS_SUGGESTED = [64, 32, 16, 8];

function attendedText({ flashTokens, bufferedTokens }: DriveSummary): string {
  const share = flashTokens + bufferedTokens === 0 ? 0 : flashTokens / (flashTokens + bufferedTokens);
  const counts = `${countText(flashTokens)} tokens from flash, ${countText(bufferedTokens)} from the tail buffer`;
  return `${counts} (${percentText(share)} from flash)`;
}

function linkText({ socketBytes, regionBytes, readBackBytes }: DriveSummary): string {
  const linkBytes = socketBytes + regionBytes;
  const ratio = timesText(readBackBytes / linkBytes);
  const ways = `${bytesText(socketBytes)} by socket, ${bytesText(regionBytes)} by shared memory`;
  return `${bytesText(linkBytes)} (${ways}); reading the cache back would have moved ${bytesText(readBackBytes)} (${ratio})`;
}

async function compare(
  loaded: LoadedModel,
  prompt: Uint8Array,
  tokens: readonly DecodedToken[],
  stepCount: number,
  types: readonly ElementType[],
): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const type of types) {
    const expected = await referenceTokens(loaded, prompt, stepCount, type);
    comparisons.push(compareTokens(`attention in memory, ${type}`, tokens, expected));
  }
  return comparisons;
}

const ratePerSecond = (tokens: number, elapsedMs: number): number => (1000 * tokens) / elapsedMs;

const sayJson = (value: unknown): void => say(JSON.stringify(value, (_key, part: unknown) => jsonPart(part)));
