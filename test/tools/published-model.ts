/** The published model that some checks run, where this checkout has it beside it; they are skipped where it hasn't. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const folder = join(process.env['ATTNDRIVE_SHARED'] ?? join(root, '../shared'), 'models');

export const publishedModel = {
  checkpoint: join(folder, 'stories260K.bin'),
  tokenizer: join(folder, 'tok512.bin'),
  /** Greedy, 200 steps, empty prompt. */
  text: `Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw \
a big, red ball. She wanted to play with it, but it was too high.
Lily's mom said, "Lily, let's go to the park." Lily was sad and didn't know what to do. She said, "I want to play with \
your ball, but I can't find it."
Lily was sad and didn't know what to do. She said, "I'm sorry, Lily. I didn't know what to do."
Lily didn't want to help her mom, so she`,
};

/** For a test's `skip`: false, or why it is skipped. */
export const publishedModelMissing: false | string =
  existsSync(publishedModel.checkpoint) && existsSync(publishedModel.tokenizer)
    ? false
    : `SKIPPED: no ${publishedModel.checkpoint} (set ATTNDRIVE_SHARED to the folder that holds models/)`;
