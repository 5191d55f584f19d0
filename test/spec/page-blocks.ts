/** A fenced block of bytes in a page. */
export interface PageBlock {
  readonly page: string;
  readonly name: string;
  readonly bytes: Uint8Array;
}

const FENCE = /^```hex name=(\w+) bytes=(\d+)\n([^]*?)^```$/gm;

/**
 * Blocks of a page: lines `offset: bytes # comment`, offsets ascending and not overlapping; bytes not listed are zero.
 * Throws an Error that names the block if one is malformed.
 */
export function pageBlocks(page: string, text: string): PageBlock[] {
  return [...text.matchAll(FENCE)].map(([, name = '', size = '', body = '']) => {
    const bytes = new Uint8Array(Number(size));
    let end = 0;
    for (const line of body.split('\n')) {
      const code = line.replace(/#.*$/, '').trim();
      if (code === '') continue;
      const match = /^(\d+): ((?:[0-9a-f]{2} ?)+)$/.exec(code);
      if (!match) throw new Error(`${page}, ${name}: ${JSON.stringify(line)} is no line of bytes`);
      const at = Number(match[1]);
      const run = Buffer.from((match[2] ?? '').replaceAll(' ', ''), 'hex');
      if (at < end || at + run.length > bytes.length)
        throw new Error(`${page}, ${name}: line at ${at} overlaps or overflows`);
      bytes.set(run, at);
      end = at + run.length;
    }
    return { page, name, bytes };
  });
}
