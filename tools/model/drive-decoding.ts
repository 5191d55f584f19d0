/** Decoding with every layer's keys and values in the drive, and what it took. */
import type { DriveClient, Sequence, SequenceInfo } from '../../client/index.ts';
import type { ElementType } from '../../spec/element-type.ts';
import { createCpuBackend } from './cpu-backend.ts';
import { type DecodedToken, decodeGreedily, stepCountOf } from './decode.ts';
import { DriveAttention } from './drive-attention.ts';
import { ModelError } from './model-error.ts';
import { fingerprint, type LoadedModel } from './source.ts';

const LABEL_PREFIX = 'decode ';

export interface DriveDecodingOptions {
  readonly prompt: Uint8Array;
  readonly stepCount: number;
  /** Default: f32, or what the stored sequence has; another than that is an error. */
  readonly elementType?: ElementType | undefined;
  /** 0: as many as fill a flash page, or as the stored sequence has; another than that is an error. */
  readonly groupTokens: number;
  /** Go on with this one. */
  readonly sequenceId?: bigint | undefined;
}

/** A sequence that is ready to be decoded on. */
export class DriveDecoding {
  readonly sequence: Sequence;
  readonly attention: DriveAttention;
  readonly #loaded: LoadedModel;
  readonly #options: DriveDecodingOptions;

  /**
   * Creates the sequence, or opens the one to go on with; that one's layers are cut to the shortest, because a crash
   * may have kept more of some than of others. ModelError if it holds something else than this model and prompt.
   */
  static async open(loaded: LoadedModel, options: DriveDecodingOptions, client: DriveClient): Promise<DriveDecoding> {
    const { shape } = loaded.model;
    const label = LABEL_PREFIX + fingerprint(loaded.model, loaded.tokenizer.encode(options.prompt));
    const { sequence, storedTokenCount } =
      options.sequenceId === undefined
        ? await create(loaded, options, label, client)
        : await reopen(loaded, options, label, client);
    const attention = await DriveAttention.prepare({ shape, storedTokenCount }, { client, sequence });
    return new DriveDecoding(loaded, options, { sequence, attention });
  }

  private constructor(
    loaded: LoadedModel,
    options: DriveDecodingOptions,
    modules: { sequence: Sequence; attention: DriveAttention },
  ) {
    this.#loaded = loaded;
    this.#options = options;
    this.sequence = modules.sequence;
    this.attention = modules.attention;
  }

  /** Tokens that are there already: they are attended to, not appended again. */
  get storedTokenCount(): number {
    return this.attention.storedTokenCount;
  }

  get stepCount(): number {
    return stepCountOf(this.#loaded.model, this.#options.stepCount);
  }

  tokens(): AsyncGenerator<DecodedToken> {
    const backend = createCpuBackend(this.#loaded.model);
    const { prompt, stepCount } = this.#options;
    return decodeGreedily(prompt, stepCount, { ...this.#loaded, backend, attention: this.attention });
  }
}

interface OpenSequence {
  readonly sequence: Sequence;
  readonly storedTokenCount: number;
}

async function create(
  { model }: LoadedModel,
  { elementType = 'f32', groupTokens }: DriveDecodingOptions,
  label: string,
  client: DriveClient,
): Promise<OpenSequence> {
  const { layerCount, kvHeadCount, headDim } = model.shape;
  const request = { layerCount, kvHeadCount, headDimK: headDim, elementTypeK: elementType, groupTokens };
  return { sequence: await client.kv.create(request, { label }), storedTokenCount: 0 };
}

async function reopen(
  { model }: LoadedModel,
  options: DriveDecodingOptions,
  label: string,
  client: DriveClient,
): Promise<OpenSequence> {
  const id = options.sequenceId!;
  const sequence = await client.kv.open(id);
  const info = await sequence.info();
  const difference = shapeDifference(info, model.shape);
  if (difference !== undefined) throw new ModelError(`sequence ${id} does not fit this model: ${difference}`);
  refuseOtherStorage(info, options);
  if (info.label.startsWith(LABEL_PREFIX) && info.label !== label) {
    throw new ModelError(`sequence ${id} was decoded from another model or prompt; give the same --model and --prompt`);
  }
  const storedTokenCount = Math.min(...info.lengths);
  if (Math.max(...info.lengths) > storedTokenCount) {
    for (const [layer, length] of info.lengths.entries()) {
      if (length > storedTokenCount) await sequence.truncate(storedTokenCount, { layer });
    }
  }
  return { sequence, storedTokenCount };
}

/** How a stored sequence is stored was settled when it was created. */
function refuseOtherStorage({ id, shape }: SequenceInfo, { elementType, groupTokens }: DriveDecodingOptions): void {
  const { elementTypeK } = shape;
  if (elementType !== undefined && elementType !== elementTypeK) {
    throw new ModelError(`--kv-dtype ${elementType}: sequence ${id} is stored as ${elementTypeK}, which stays`);
  }
  if (groupTokens !== 0 && groupTokens !== shape.groupTokens) {
    throw new ModelError(`--group-tokens ${groupTokens}: sequence ${id} has ${shape.groupTokens}, which stays`);
  }
}

function shapeDifference({ shape }: SequenceInfo, model: LoadedModel['model']['shape']): string | undefined {
  const pairs = [
    ['layers', shape.layerCount, model.layerCount],
    ['KV heads', shape.kvHeadCount, model.kvHeadCount],
    ['head dimension of K', shape.headDimK, model.headDim],
    ['head dimension of V', shape.headDimV, model.headDim],
  ] as const;
  const found = pairs.find(([, stored, needed]) => stored !== needed);
  return found && `${found[0]} ${found[1]}, the model has ${found[2]}`;
}
