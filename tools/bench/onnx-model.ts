/**
 * An ONNX model of one attention operator, as bytes: what a runtime needs to run it. The few messages of onnx.proto
 * (github.com/onnx/onnx, IR version 8) that this takes are written here; field numbers are those of that file.
 */

/** TensorProto.DataType. */
export const onnxTypes = { float32: 1, int32: 6, float16: 10 } as const;
export type OnnxType = keyof typeof onnxTypes;

/** A dimension that is not known before a run has a name. */
export interface OnnxValue {
  readonly name: string;
  readonly type: OnnxType;
  readonly dims: readonly (number | string)[];
}

export interface OnnxNode {
  readonly operator: string;
  /** Of the operator set "com.microsoft", version 1. */
  readonly attributes: Readonly<Record<string, number>>;
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
}

const IR_VERSION = 8;
const OPSET_VERSION = 17;
const DOMAIN = 'com.microsoft';
/** AttributeProto.AttributeType.INT. */
const INT_ATTRIBUTE = 2;

/** ModelProto with one node in its graph; inputs and outputs of the graph are those of the node. */
export function onnxModel({ operator, attributes, inputs, outputs }: OnnxNode): Uint8Array {
  const node = [
    ...inputs.map(({ name }) => text(1, name)),
    ...outputs.map(({ name }) => text(2, name)),
    text(4, operator),
    ...Object.entries(attributes).map(([name, value]) =>
      message(5, [text(1, name), integer(3, value), integer(20, INT_ATTRIBUTE)]),
    ),
    text(7, DOMAIN),
  ];
  const graph = [
    message(1, node),
    text(2, operator),
    ...inputs.map((value) => message(11, valueInfo(value))),
    ...outputs.map((value) => message(12, valueInfo(value))),
  ];
  const opset = (domain: string, version: number): Buffer => message(8, [text(1, domain), integer(2, version)]);
  return Buffer.concat([integer(1, IR_VERSION), message(7, graph), opset('', OPSET_VERSION), opset(DOMAIN, 1)]);
}

/** ValueInfoProto: name, type { tensor_type { elem_type, shape { dim … } } }. */
function valueInfo({ name, type, dims }: OnnxValue): Buffer[] {
  const shape = dims.map((dim) => message(1, [typeof dim === 'number' ? integer(1, dim) : text(2, dim)]));
  return [text(1, name), message(2, [message(1, [integer(1, onnxTypes[type]), message(2, shape)])])];
}

const VARINT_WIRE_TYPE = 0;
const LENGTH_WIRE_TYPE = 2;

const tag = (field: number, wireType: number): Buffer => varint(field * 8 + wireType);
const integer = (field: number, value: number): Buffer => Buffer.concat([tag(field, VARINT_WIRE_TYPE), varint(value)]);
const text = (field: number, value: string): Buffer => message(field, [Buffer.from(value)]);

function message(field: number, parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([tag(field, LENGTH_WIRE_TYPE), varint(body.length), body]);
}

/** Seven bits a byte, lowest first. `value`: not negative. */
function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  bytes.push(rest);
  return Buffer.from(bytes);
}
