import { readFileSync } from 'node:fs';

const REPLACEMENT = '\ufffd';
const OPTION = '--prompt=';

/**
 * The prompt's bytes as they were given. Node decodes arguments as UTF-8 and puts U+FFFD where they are none; where
 * that has happened, the bytes are fetched from the kernel (on Linux; elsewhere U+FFFD is what remains).
 */
export function promptBytes(prompt: string): Uint8Array {
  if (prompt.includes(REPLACEMENT)) {
    for (const argument of rawArguments()) {
      const text = argument.toString('utf8');
      if (text === prompt) return argument;
      if (text === OPTION + prompt) return argument.subarray(OPTION.length);
    }
  }
  return Buffer.from(prompt, 'utf8');
}

function rawArguments(): Buffer[] {
  let line: Buffer;
  try {
    line = readFileSync('/proc/self/cmdline');
  } catch {
    return [];
  }
  const found: Buffer[] = [];
  let start = 0;
  for (let end = line.indexOf(0); end >= 0; end = line.indexOf(0, start)) {
    found.push(line.subarray(start, end));
    start = end + 1;
  }
  return found;
}
