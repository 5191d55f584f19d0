import type { Durability } from '../ftl/contract.ts';
import type { CommandContext } from './contract.ts';

/**
 * Called when a command has changed the drive and is about to complete: waits until the change is durable if the command
 * asks for it (FUA) or its host has turned the write cache off. DriveError writeFault: the change is there all the same,
 * but may be lost.
 */
export async function settleDurability(
  { association }: CommandContext,
  durability: Durability,
  fua = false,
): Promise<void> {
  if (fua || !association.features.writeCache) await durability.syncStaging();
}
