// Walks a job's frames and fills blocks: lists of K and V row addresses and positions.
import { K_ROWS, POSITIONS, V_ROWS } from './layout';

/** What the row lists have room for. */
export const BLOCK_TOKENS_MAX: u32 = 64;

// Module variables are each instance's own, unlike memory.
let frame: usize = 0;
let framesEnd: usize = 0;
let minStart: u32 = 0;
let maxEnd: u32 = 0;
let sinkCount: u32 = 0;
let kBytes: usize = 0;
let vBytes: usize = 0;
let kRow: usize = 0;
let vRow: usize = 0;
let position: u32 = 0;
let left: u32 = 0;
let blockTokens: u32 = 0;

/** Starts over, with blocks of `tokens` tokens. Tokens in neither [0, sinks) nor [start, end) are left out. */
export function startBlocks(
  frames: usize, frameCount: u32, start: u32, end: u32, sinks: u32, kRowBytes: usize, vRowBytes: usize, tokens: u32,
): void {
  frame = frames;
  framesEnd = frames + (<usize>frameCount << 5);
  minStart = start;
  maxEnd = end;
  sinkCount = sinks;
  kBytes = kRowBytes;
  vBytes = vRowBytes;
  blockTokens = tokens;
  left = 0;
}

@inline
function skip(count: u32): void {
  const some = min(count, left);
  kRow += <usize>some * kBytes;
  vRow += <usize>some * vBytes;
  position += some;
  left -= some;
}

/** Fills a block's lists and gives its token count, 0 at the end, -1 for a frame outside the arena's memory. */
export function nextBlock(lists: usize): i32 {
  let n: u32 = 0;
  while (n < blockTokens) {
    if (left == 0) {
      if (frame == framesEnd) break;
      if ((load<u32>(frame, 24) | load<u32>(frame, 28) | load<u32>(frame, 4) | load<u32>(frame, 12)) != 0) return -1;
      kRow = load<u32>(frame);
      vRow = load<u32>(frame, 8);
      position = load<u32>(frame, 16);
      left = load<u32>(frame, 20);
      frame += 32;
    } else if (position >= maxEnd) {
      left = 0;
    } else if (position < minStart && position >= sinkCount) {
      skip(minStart - position);
    } else {
      n = take(lists, n);
    }
  }
  // Rows are read in groups of up to four: the list is padded with its last one.
  for (let i = n; n > 0 && i % 4 != 0; i++) {
    const at = lists + (<usize>i << 2);
    store<u32>(at, load<u32>(lists + (<usize>(n - 1) << 2), K_ROWS), K_ROWS);
  }
  return n;
}

function take(lists: usize, n: u32): u32 {
  let run = min(min(left, maxEnd - position), blockTokens - n);
  if (position < minStart) run = min(run, sinkCount - position);
  for (let i: u32 = 0; i < run; i++) {
    const at = lists + (<usize>(n + i) << 2);
    store<u32>(at, <u32>kRow, K_ROWS);
    store<u32>(at, <u32>vRow, V_ROWS);
    store<u32>(at, position + i, POSITIONS);
    kRow += kBytes;
    vRow += vBytes;
  }
  position += run;
  left -= run;
  return n + run;
}
