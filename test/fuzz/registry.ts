/** Every fuzzer. */
import { commandsTarget } from './commands/commands-target.ts';
import { daemonTarget } from './daemon/daemon-target.ts';
import { fabricsTarget } from './fabrics/fabrics-target.ts';
import { httpTarget } from './http/http-target.ts';
import { imageTarget } from './image/image-target.ts';
import { pduTarget } from './pdu/pdu-target.ts';
import { structsTarget } from './structs/structs-target.ts';
import { textsTarget } from './texts/texts-target.ts';
import type { Target } from './target.ts';

export const targets = [
  pduTarget,
  commandsTarget,
  fabricsTarget,
  structsTarget,
  textsTarget,
  imageTarget,
  httpTarget,
  daemonTarget,
] as readonly unknown[] as readonly Target[];

/** Error: there is none of this name. */
export function targetNamed(name: string): Target {
  const target = targets.find((one) => one.name === name);
  if (target === undefined) throw new Error(`target ${name}: one of ${targets.map((one) => one.name).join(', ')}`);
  return target;
}
