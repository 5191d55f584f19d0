/** A model or tokenizer file, or a request to decode, that cannot be used. The message is one line for people. */
export class ModelError extends Error {
  override readonly name = 'ModelError';
}
