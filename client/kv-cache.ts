import { KV_CACHE_NSID, kvOpcodes, querySelectors } from '../spec/index.ts';
import type { CommandOptions } from './command.ts';
import { DriveProtocolError } from './errors.ts';
import {
  encodeCreate,
  querySequence,
  Sequence,
  type SequenceOptions,
  type SequenceShape,
  sequenceIdOf,
  sequenceTarget,
} from './sequence.ts';
import type { Request, Transfers } from './transfers.ts';

/** A shape as its creator gives it. */
export interface SequenceRequest {
  readonly layerCount: number;
  readonly kvHeadCount: number;
  /** Elements of one K row; of one V row too unless `headDimV` says otherwise. */
  readonly headDimK: number;
  readonly headDimV?: number | undefined;
  /** Types to store; default f16. */
  readonly elementTypeK?: SequenceShape['elementTypeK'] | undefined;
  readonly elementTypeV?: SequenceShape['elementTypeV'] | undefined;
  /** Tokens per group; default 0: as many as fill a flash page. */
  readonly groupTokens?: number | undefined;
}

const LIST_IDS = 2048;

/** The KV-cache namespace: sequences by id. */
export class KvCache {
  readonly #transfers: Transfers;

  constructor(modules: { transfers: Transfers }) {
    this.#transfers = modules.transfers;
  }

  /** Creates an empty sequence. DriveCommandError invalidShape, sequenceExists, sequenceLimit. */
  async create(request: SequenceRequest, options: SequenceOptions = {}): Promise<Sequence> {
    const shape: SequenceShape = {
      layerCount: request.layerCount,
      kvHeadCount: request.kvHeadCount,
      headDimK: request.headDimK,
      headDimV: request.headDimV ?? request.headDimK,
      elementTypeK: request.elementTypeK ?? 'f16',
      elementTypeV: request.elementTypeV ?? request.elementTypeK ?? 'f16',
      groupTokens: request.groupTokens ?? 0,
    };
    const command: Request = {
      opcode: kvOpcodes.create,
      subject: () => `sequence ${options.id ?? 'new'}, shape ${JSON.stringify(shape)}`,
      namespaceId: KV_CACHE_NSID,
    };
    const { dw0, dw1 } = await this.#transfers.send(command, [encodeCreate(shape, options)], options);
    return this.open(sequenceIdOf(dw0, dw1), options);
  }

  /** A handle on a sequence that exists. DriveCommandError unknownSequence. */
  async open(id: bigint, options: CommandOptions = {}): Promise<Sequence> {
    const { shape } = await querySequence(this.#transfers, id, options);
    return new Sequence({ id, shape }, { transfers: this.#transfers });
  }

  /** Ids of all sequences, ascending. */
  async list(options: CommandOptions = {}): Promise<bigint[]> {
    const ids: bigint[] = [];
    const data = new BigUint64Array(LIST_IDS);
    for (;;) {
      data.fill(0n);
      const request: Request = {
        opcode: kvOpcodes.query,
        subject: () => 'list of sequences',
        ...sequenceTarget(ids.at(-1) ?? 0n),
        cdw12: querySelectors.list,
      };
      await this.#transfers.receive(request, new Uint8Array(data.buffer), { ...options, mayBeShort: true });
      for (const id of data) {
        if (id === 0n) return ids;
        if (id <= (ids.at(-1) ?? 0n)) throw new DriveProtocolError(`sequence ids do not ascend at ${id}`);
        ids.push(id);
      }
    }
  }

  /** Makes everything durable that completed before. */
  async flush(options: CommandOptions = {}): Promise<void> {
    const request: Request = { opcode: kvOpcodes.flush, subject: () => 'KV cache', namespaceId: KV_CACHE_NSID };
    await this.#transfers.execute(request, options);
  }
}
