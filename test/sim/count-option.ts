/** The value of an option that counts something: from 1 on. `otherwise`: without the option. Error: what is allowed. */
export function countOption(text: string | undefined, name: string, otherwise: number): number {
  if (text === undefined) return otherwise;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new Error(`--${name} ${text}: a whole number from 1`);
  return value;
}
