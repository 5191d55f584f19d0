import { loadAddon } from './addon.ts';

/**
 * Says whether the calling thread's event loop would find something to do if it looked, but for timers and what was put off to
 * the end of a turn. Undefined where that can't be told.
 */
export function pendingEvents(): (() => boolean) | undefined {
  const addon = loadAddon();
  if (addon instanceof Error || addon.hasPendingEvents() === undefined) return undefined;
  return addon.hasPendingEvents as () => boolean;
}
