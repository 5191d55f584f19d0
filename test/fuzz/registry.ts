/** Every fuzzer. */
import { commandsTarget } from './commands/commands-target.ts';
import { fabricsTarget } from './fabrics/fabrics-target.ts';
import { pduTarget } from './pdu/pdu-target.ts';
import type { Target } from './target.ts';

export const targets = [pduTarget, commandsTarget, fabricsTarget] as readonly unknown[] as readonly Target[];

/** Error: there is none of this name. */
export function targetNamed(name: string): Target {
  const target = targets.find((one) => one.name === name);
  if (target === undefined) throw new Error(`target ${name}: one of ${targets.map((one) => one.name).join(', ')}`);
  return target;
}
