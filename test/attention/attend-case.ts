/** Attend commands on known rows, with the outputs that they should have. */
import assert from 'node:assert/strict';
import { elementSizeBytes, elementTypes, type FloatType, isQuantised } from '../../spec/element-type.ts';
import {
  type AttendCounts,
  type AttendOptions,
  type AttendTarget,
  type AttentionEngine,
  outputSizeBytes,
} from '../../daemon/attention/contract.ts';
import type { Arena } from '../../daemon/base/arena.ts';
import type { Kernels } from '../../daemon/kernels/contract.ts';
import type { SequenceShape } from '../../daemon/kv/contract.ts';
import { attendOracle, type OracleRow } from './oracle.ts';
import type { Random } from './random.ts';
import { asStored, type StoredRows } from './stored-rows.ts';

export interface KnownSequence {
  readonly id: bigint;
  readonly shape: SequenceShape;
  readonly k: readonly StoredRows[];
  readonly v: readonly StoredRows[];
  readonly lengths: readonly number[];
}

export const plainOptions: AttendOptions = {
  causal: false,
  statistics: true,
  queryType: 'f32',
  outputType: 'f32',
  scale: 0,
  softCap: 0,
  slidingWindow: 0,
  sinkCount: 0,
};

export type TargetRequest = Partial<Omit<AttendTarget, 'sequenceId' | 'queryOffset' | 'outputOffset'>>;

export interface Prepared {
  readonly target: AttendTarget;
  readonly options: AttendOptions;
  readonly headDimV: number;
  readonly rowCount: number;
  /** K or V is stored as integers. */
  readonly isInteger: boolean;
  expected(): OracleRow[];
}

/** Puts random queries into the arena and makes room for the output. */
export function prepare(
  sequence: KnownSequence,
  options: AttendOptions,
  request: TargetRequest,
  modules: { arena: Arena; kernels: Kernels; random: Random },
): Prepared {
  const { shape } = sequence;
  const { arena, random } = modules;
  const queryHeadsPerKvHead = request.queryHeadsPerKvHead ?? 1;
  const firstQueryHead = request.firstQueryHead ?? 0;
  const queryHeadCount = request.queryHeadCount ?? queryHeadsPerKvHead * shape.kvHeadCount - firstQueryHead;
  const queryTokenCount = request.queryTokenCount ?? 1;
  const layer = request.layer ?? 0;
  const length = sequence.lengths[layer] ?? 0;
  const rowCount = queryTokenCount * queryHeadCount;
  const source = Float32Array.from({ length: rowCount * shape.headDimK }, () => random.normal());
  const { bytes, values } = asStored(source, options.queryType, 1, modules);
  const queryOffset = arena.allocate(bytes.length);
  arena.bytes.set(bytes, queryOffset);
  const sizeBytes = outputBytes(rowCount, shape.headDimV, options);
  const outputOffset = arena.allocate(sizeBytes);
  arena.bytes.fill(0xa5, outputOffset, outputOffset + sizeBytes);
  const target: AttendTarget = {
    queryHeadsPerKvHead,
    firstQueryHead,
    queryHeadCount,
    queryTokenCount,
    layer,
    queryPosition: Math.max(0, length - queryTokenCount),
    tokenStart: 0,
    tokenEnd: undefined,
    ...request,
    sequenceId: sequence.id,
    queryOffset,
    outputOffset,
  };
  return {
    target,
    options,
    headDimV: shape.headDimV,
    rowCount,
    isInteger: isQuantised(shape.elementTypeK) || isQuantised(shape.elementTypeV),
    expected: () =>
      attendOracle({
        ...target,
        ...options,
        tokenEnd: target.tokenEnd ?? length,
        headDimK: shape.headDimK,
        headDimV: shape.headDimV,
        q: (token, head, dim) => values[(token * queryHeadCount + head) * shape.headDimK + dim]!,
        k: sequence.k[layer]!.at,
        v: sequence.v[layer]!.at,
      }),
  };
}

const outputBytes = (rowCount: number, headDimV: number, options: AttendOptions): number =>
  outputSizeBytes(rowCount, headDimV, elementSizeBytes(options.outputType), options.statistics);

/** The output's bytes as they stand. */
export function outputOf(prepared: Prepared, arena: Arena): Uint8Array {
  const { target, rowCount, headDimV, options } = prepared;
  return arena.view(target.outputOffset, outputBytes(rowCount, headDimV, options)).slice();
}

const tolerances: Record<FloatType, number> = { f32: 2e-5, f16: 2e-3, bf16: 1.6e-2 };
/** What integer dot products may add, several times: test/kernels holds them to their bound. */
const INTEGER_TOLERANCE = 1e-3;

/** Fails if the output differs from the definition by more than float32 arithmetic and the output type explain. */
export function assertOutput(prepared: Prepared, modules: { arena: Arena; kernels: Kernels }, label = ''): void {
  const { options, rowCount, headDimV, target } = prepared;
  const { arena, kernels } = modules;
  const count = rowCount * headDimV;
  const wide = arena.allocate(count * 4);
  kernels.convert(target.outputOffset, elementTypes[options.outputType].code, wide, elementTypes.f32.code, count, 1);
  const output = new Float32Array(arena.buffer, wide, count).slice();
  arena.free(wide);
  const rowsBytes = Math.ceil((count * elementSizeBytes(options.outputType)) / 4) * 4;
  const statistics = options.statistics
    ? new Float32Array(arena.buffer, target.outputOffset + rowsBytes, rowCount * 2)
    : undefined;
  const integerTolerance = prepared.isInteger && kernels.isa === 'avx512dp' ? INTEGER_TOLERANCE : 0;
  const tolerance = tolerances[options.outputType] + integerTolerance;
  for (const [row, expected] of prepared.expected().entries()) {
    const norm = Math.sqrt(expected.output.reduce((sum, x) => sum + x * x, 0) / headDimV) + 1e-3;
    for (let d = 0; d < headDimV; d++) {
      const actual = output[row * headDimV + d]!;
      const error = Math.abs(actual - expected.output[d]!) / norm;
      assert.ok(error < tolerance * 4, `${label} row ${row} column ${d}: ${actual}, expected ${expected.output[d]}`);
    }
    if (!statistics) continue;
    assertNear(statistics[row * 2]!, expected.maximum, integerTolerance, `${label} row ${row} maximum`);
    assertNear(statistics[row * 2 + 1]!, expected.logSumExp, integerTolerance, `${label} row ${row} log-sum-exp`);
  }
}

function assertNear(actual: number, expected: number, more: number, label: string): void {
  if (Object.is(actual, expected)) return;
  const allowed = (1e-4 + more) * (1 + Math.abs(expected));
  assert.ok(Math.abs(actual - expected) < allowed, `${label}: ${actual}, expected ${expected}`);
}

/** Attends one target and checks it; returns what the engine counted. */
export async function attendAndCheck(
  engine: AttentionEngine,
  sequence: KnownSequence,
  options: Partial<AttendOptions>,
  request: TargetRequest,
  modules: { arena: Arena; kernels: Kernels; random: Random },
  label = '',
): Promise<AttendCounts> {
  const prepared = prepare(sequence, { ...plainOptions, ...options }, request, modules);
  const counts = await engine.attend(prepared.options, [prepared.target]);
  assertOutput(prepared, modules, label);
  modules.arena.free(prepared.target.queryOffset);
  modules.arena.free(prepared.target.outputOffset);
  return counts;
}
