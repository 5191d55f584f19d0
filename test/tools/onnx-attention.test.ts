import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkOnnxAttention, findOnnxRuntime } from '../../tools/bench/onnx-attention.ts';
import { onnxModel } from '../../tools/bench/onnx-model.ts';

test('a model has the messages of onnx.proto', () => {
  const value = (name: string) => ({ name, type: 'float16' as const, dims: [1, 300, 'total'] });
  const model = onnxModel({
    operator: 'MultiHeadAttention',
    attributes: { num_heads: 40 },
    inputs: [value('query')],
    outputs: [value('output')],
  });
  const golden = [
    '0808', // ir_version
    '3aa101', // graph
    '0a440a05717565727912066f757470757422124d756c746948656164417474656e74696f6e', // node: input, output, op_type
    '2a100a096e756d5f68656164731828a00102', // attribute: name, i, type
    '3a0d636f6d2e6d6963726f736f6674', // domain
    '12124d756c746948656164417474656e74696f6e', // name of the graph
    '5a210a05717565727912180a16080a12120a0208010a0308ac020a071205746f74616c', // input: name, elem_type, dims
    '62220a066f757470757412180a16080a12120a0208010a0308ac020a071205746f74616c', // output
    '42040a001011', // opset_import
    '42110a0d636f6d2e6d6963726f736f66741001',
  ];
  assert.equal(Buffer.from(model).toString('hex'), golden.join(''));
});

test('where onnxruntime-node is installed, it runs such models, and what comes out is attention', async (t) => {
  const runtime = findOnnxRuntime();
  if (runtime === undefined) {
    t.skip('onnxruntime-node is not installed: npm ci --ignore-scripts --prefix tools/bench/peers');
    return;
  }
  await checkOnnxAttention(runtime, { queryHeadCount: 6, kvHeadCount: 2 });
  await checkOnnxAttention(runtime, { queryHeadCount: 3, kvHeadCount: 3 });
});
