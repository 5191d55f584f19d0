/**
 * The yardstick: how fast this machine's memory can be read at all. A WebAssembly function that adds up 128-bit words,
 * assembled here because it is a dozen instructions; on one core it runs at the memory's speed.
 */

const I32 = 0x7f;
const I64 = 0x7e;
const V128 = 0x7b;
const STEP_BYTES = 256;
const ACCUMULATORS = 4;

const unsigned = (value: number): number[] =>
  value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
const section = (id: number, body: readonly number[]): number[] => [id, ...unsigned(body.length), ...body];
const name = (text: string): number[] => [text.length, ...Buffer.from(text)];

const getLocal = (index: number): number[] => [0x20, index];
const setLocal = (index: number): number[] => [0x21, index];
const loadV128 = (offset: number): number[] => [0xfd, 0x00, 4, ...unsigned(offset)];
const addI64x2 = [0xfd, 0xce, 0x01];
const extractI64 = (lane: number): number[] => [0xfd, 0x1d, lane];

/** Locals: 0 address, 1 end, 2 to 5 accumulators. */
function sumBody(): number[] {
  const loads: number[] = [];
  for (let i = 0; i < STEP_BYTES / 16; i++) {
    const accumulator = 2 + (i % ACCUMULATORS);
    loads.push(...getLocal(accumulator), ...getLocal(0), ...loadV128(16 * i), ...addI64x2, ...setLocal(accumulator));
  }
  const advance = [...getLocal(0), 0x41, 0x80, 0x02, 0x6a, 0x22, 0];
  const again = [...getLocal(1), 0x49, 0x0d, 0];
  const total = [2, 3, 4, 5].flatMap((index) => (index === 2 ? getLocal(2) : [...getLocal(index), ...addI64x2]));
  const lanes = [...setLocal(2), ...getLocal(2), ...extractI64(0), ...getLocal(2), ...extractI64(1), 0x7c];
  return [1, ACCUMULATORS, V128, 0x03, 0x40, ...loads, ...advance, ...again, 0x0b, ...total, ...lanes, 0x0b];
}

function moduleBytes(memoryPages: number): Uint8Array<ArrayBuffer> {
  const body = sumBody();
  return Uint8Array.from([
    0x00,
    0x61,
    0x73,
    0x6d,
    1,
    0,
    0,
    0,
    ...section(1, [1, 0x60, 2, I32, I32, 1, I64]),
    ...section(2, [1, ...name('probe'), ...name('memory'), 0x02, 0x03, ...unsigned(1), ...unsigned(memoryPages)]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name('sum'), 0x00, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body]),
  ]);
}

/** Reads [offset, offset + sizeBytes) of the memory, a multiple of 256 bytes, and returns a sum that depends on all. */
export type ReadSum = (offset: number, sizeBytes: number) => bigint;

export function createReadSum(memory: WebAssembly.Memory): ReadSum {
  const pages = memory.buffer.byteLength / 65_536;
  const instance = new WebAssembly.Instance(new WebAssembly.Module(moduleBytes(pages)), { probe: { memory } });
  const sum = instance.exports['sum'] as (start: number, end: number) => bigint;
  return (offset, sizeBytes) => {
    if (sizeBytes <= 0 || sizeBytes % STEP_BYTES !== 0)
      throw new RangeError(`${sizeBytes} bytes: a multiple of ${STEP_BYTES}`);
    return sum(offset | 0, (offset + sizeBytes) | 0);
  };
}
