/** Inputs as text: JSON in which bytes are hexadecimal. */

const BYTES_KEY = 'hex';

export const inputsText = (inputs: readonly unknown[]): string =>
  inputs.map((input) => JSON.stringify(input, writeBytes)).join('\n');

/** A Buffer has turned itself into something else by the time `value` is given: what it was is looked up. */
function writeBytes(this: Record<string, unknown>, key: string, value: unknown): unknown {
  const raw = this[key];
  return raw instanceof Uint8Array ? { [BYTES_KEY]: Buffer.from(raw).toString('hex') } : value;
}

const isBytes = (value: object): value is { [BYTES_KEY]: string } =>
  Object.keys(value).length === 1 && typeof (value as Record<string, unknown>)[BYTES_KEY] === 'string';

/** As `inputsText` has written them: one a line. */
export const parseInputs = (text: string): unknown[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) =>
      JSON.parse(line, (_, value: unknown) =>
        typeof value === 'object' && value !== null && isBytes(value)
          ? Uint8Array.from(Buffer.from(value[BYTES_KEY], 'hex'))
          : value,
      ),
    ) as unknown[];
