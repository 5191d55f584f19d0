import { DESCRIPTOR_VERSION, regionDescriptor } from '../../../spec/kv-commands.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import { type CommandContext, type CommandDefinition, type CommandResult, SUCCESS } from '../contract.ts';
import { ALL_BITS, checkLength } from '../fields.ts';

/** CDW10-11: size in bytes. Returns the region's descriptor. */
export const regionCreate = (): CommandDefinition => ({
  row: adminOpcodes.regionCreate,
  allowedBits: { cdw10: ALL_BITS, cdw11: ALL_BITS },
  namespace: 'none',
  run: createRegion,
});

async function createRegion({ entry, data, association }: CommandContext): Promise<CommandResult> {
  checkLength(data, regionDescriptor.sizeBytes);
  const region = await association.createRegion(entry.cdw11 * 0x1_0000_0000 + entry.cdw10);
  try {
    if (Buffer.byteLength(region.path) > regionDescriptor.fields.path.width) {
      throw new DriveError('regionLimit', `path ${region.path} is longer than its field`);
    }
    const { key, sizeBytes, path } = region;
    await data.write(regionDescriptor.encode({ version: DESCRIPTOR_VERSION, key, sizeBytes, path }));
  } catch (error) {
    // A region that the host never learned of would stay until the association ends.
    await association.deleteRegion(region.key).catch(() => undefined);
    throw error;
  }
  return SUCCESS;
}
