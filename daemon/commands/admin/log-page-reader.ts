import { getLogPageBits, getLogPageHighBits, getLogPageIndexBits } from '../../../spec/log-pages.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import { DriveError } from '../../base/errors.ts';
import {
  type Association,
  type CommandContext,
  type CommandDefinition,
  type CommandResult,
  type Limits,
  SUCCESS,
} from '../contract.ts';
import { ALL_BITS, checkLength, field, maskOf, refuse } from '../fields.ts';
import { BROADCAST_NSID } from '../namespace-ids.ts';

/** One log page of a kind of controller. */
export interface LogPage {
  /** Whether CDW14 says of which command set. */
  readonly hasCommandSets: boolean;
  /** What the log specific identifier has to be. */
  readonly specificIdentifier: number;
  /** The whole page. `csi` is 0 where the page has no command sets. */
  build(association: Association, csi: number): Uint8Array;
}

export interface LogPageOptions {
  readonly limits: Limits;
  /** By log page identifier. */
  readonly pages: ReadonlyMap<number, LogPage>;
}

/** Get Log Page: any part of a page; behind its end are zeros. */
export const getLogPageOf = (options: LogPageOptions): CommandDefinition => ({
  row: adminOpcodes.getLogPage,
  allowedBits: {
    cdw10: maskOf(getLogPageBits),
    cdw11: maskOf(getLogPageHighBits),
    cdw12: ALL_BITS,
    cdw13: ALL_BITS,
    cdw14: maskOf(getLogPageIndexBits),
  },
  namespace: 'any',
  run: (context) => read(context, options),
});

async function read(context: CommandContext, { limits, pages }: LogPageOptions): Promise<CommandResult> {
  const { entry, data, association } = context;
  const lid = field(entry.cdw10, getLogPageBits.lid);
  const retain = field(entry.cdw10, getLogPageBits.rae) === 1;
  const page = pages.get(lid);
  if (page === undefined) throw new DriveError('invalidLogPage', `log page ${lid}`);
  checkParameters(context, page);
  const dwords = field(entry.cdw11, getLogPageHighBits.numdu) * 0x1_0000 + field(entry.cdw10, getLogPageBits.numdl) + 1;
  const lengthBytes = dwords * 4;
  if (lengthBytes > limits.transferBytesMax) {
    throw refuse(`${lengthBytes} bytes, allowed: up to ${limits.transferBytesMax}`);
  }
  checkLength(data, lengthBytes);
  const offset = entry.cdw13 * 0x1_0000_0000 + entry.cdw12;
  const bytes = page.build(association, field(entry.cdw14, getLogPageIndexBits.csi));
  if (offset % 4 !== 0 || offset > bytes.length) {
    throw refuse(`offset ${offset}, allowed: multiples of 4 up to ${bytes.length}`);
  }
  if (!retain) association.logPageRead(lid);
  const target = new Uint8Array(lengthBytes);
  target.set(bytes.subarray(offset, offset + lengthBytes));
  await data.write(target);
  return SUCCESS;
}

function checkParameters({ entry }: CommandContext, { hasCommandSets, specificIdentifier }: LogPage): void {
  const { cdw10, cdw11, cdw14, namespaceId } = entry;
  if (field(cdw10, getLogPageBits.lsp) !== 0) throw refuse('no log page has a specific parameter');
  const identifier = field(cdw11, getLogPageHighBits.lsi);
  if (identifier !== specificIdentifier) {
    throw refuse(
      `log specific identifier ${identifier} of page ${field(cdw10, getLogPageBits.lid)}, allowed: ${specificIdentifier}`,
    );
  }
  if (field(cdw14, getLogPageIndexBits.uuidIndex) !== 0) throw refuse('UUID index: there is no UUID list');
  if (field(cdw14, getLogPageIndexBits.ot) !== 0) throw refuse('no log page takes an index as offset');
  const csi = field(cdw14, getLogPageIndexBits.csi);
  if (csi !== 0 && !hasCommandSets) throw new DriveError('invalidCommandSet', `CSI ${csi} for a page without`);
  // LPA bit 0 is 0: logs are of the whole controller.
  if (namespaceId !== 0 && namespaceId !== BROADCAST_NSID) {
    throw new DriveError('invalidNamespace', `log pages are not kept by namespace; NSID ${namespaceId}`);
  }
}
