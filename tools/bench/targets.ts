/** What the drive is built to reach: the one table of bounds that a report holds ratios against. No test asserts them. */

export interface Target {
  readonly title: string;
  /** What a ratio should be at least, or at most. */
  readonly sense: 'atLeast' | 'atMost';
  readonly bound: number;
}

const atLeast = (bound: number, title: string): Target => ({ title, sense: 'atLeast', bound });
const atMost = (bound: number, title: string): Target => ({ title, sense: 'atMost', bound });

/** In the order of a report. */
export const targets = {
  kernelGqaOneThread: atLeast(0.8, 'kernel of memory read, GQA, 1 thread'),
  kernelMhaOneThread: atLeast(0.85, 'kernel of memory read, MHA, 1 thread'),
  kernelBusBound: atLeast(0.95, 'kernel of memory read, all threads, bus-bound'),
  kernelNotBusBound: atLeast(0.8, 'kernel of memory read, all threads'),
  kernelAvx2: atLeast(0.5, 'kernel of memory read, AVX2, 1 thread'),
  kernelScattered16: atLeast(0.9, 'scattered of contiguous pages of 16 KiB'),
  kernelScattered4: atLeast(0.75, 'scattered of contiguous pages of 4 KiB'),
  wasmGqa: atLeast(0.2, 'WebAssembly of memory read, GQA'),
  wasmMha: atLeast(0.33, 'WebAssembly of memory read, MHA'),
  int8: atLeast(1.6, 'int8 against f16, tokens per second'),
  int4: atLeast(2, 'int4 against f16, tokens per second'),
  attendLong: atLeast(0.95, 'ATTN of kernel, 32K tokens'),
  attendDeep: atLeast(0.9, 'ATTN of kernel, 4K tokens, depth 8'),
  attendShort: atLeast(0.85, 'ATTN of kernel, 4K tokens, depth 1'),
  attendSmall: atMost(1.5, 'ATTN of 256 tokens against a ping-pong'),
  readbackSocketOne: atLeast(7, 'ATTN against reading back by socket, 1 worker'),
  readbackSocketTwo: atLeast(12, 'ATTN against reading back by socket, 2 workers'),
  readbackHttp: atLeast(40, 'ATTN against reading back by HTTP'),
  socketTransfer: atLeast(0.8, 'SDK of bare socket transfer'),
  append: atLeast(0.5, 'append through a region of memcpy'),
  cold: atLeast(0.85, 'ATTN over twice the cache of disk and memory'),
  block: atLeast(0.7, '4 KiB blocks of an echo of the same PDUs'),
  commands: atLeast(0.6, 'smallest commands of a bare echo, depth 32'),
  fairness: atMost(5, 'p99 of a short ATTN beside a long one'),
} as const satisfies Record<string, Target>;

export type TargetName = keyof typeof targets;

export function meets({ sense, bound }: Target, ratio: number): boolean {
  return sense === 'atLeast' ? ratio >= bound : ratio <= bound;
}
