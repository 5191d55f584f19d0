/** Submission entries made of the tables of spec/ and nothing else: they can say wrong things too. */
import {
  CNTLID_DYNAMIC,
  connectCommand,
  connectData,
  propertyGetCommand,
  propertySetCommand,
} from '../../spec/fabrics.ts';
import { FABRICS_OPCODE, fabricsTypes } from '../../spec/opcodes.ts';
import { encodeSgl, SGL_FLAGS, type Sgl } from '../../spec/sgl.ts';
import { submissionEntry } from '../../spec/submission-entry.ts';

export interface CommandFields {
  opcode: number;
  nsid?: number;
  flags?: number;
  cdw2?: number;
  cdw3?: number;
  cdw10?: number;
  cdw11?: number;
  cdw12?: number;
  cdw13?: number;
  cdw14?: number;
  cdw15?: number;
  sgl?: Sgl;
  /** Sixteen raw bytes instead of `sgl`. */
  sglBytes?: Uint8Array;
}

export type ConnectFields = Partial<Parameters<typeof connectCommand.encode>[0]>;
export type ConnectDataFields = Partial<Parameters<typeof connectData.encode>[0]>;

const HOST_NQN = 'nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555';

export function entryBytes(fields: CommandFields, commandId: number): Uint8Array {
  const { opcode, nsid = 0, flags = SGL_FLAGS, sgl = { kind: 'none' }, sglBytes } = fields;
  const { cdw2 = 0, cdw3 = 0, cdw10 = 0, cdw11 = 0, cdw12 = 0, cdw13 = 0, cdw14 = 0, cdw15 = 0 } = fields;
  const dwords = { cdw2, cdw3, cdw10, cdw11, cdw12, cdw13, cdw14, cdw15 };
  const sgl16 = sglBytes ?? encodeSgl(sgl);
  return submissionEntry.encode({ opcode, flags, commandId, namespaceId: nsid, sgl: sgl16, ...dwords });
}

export const connectEntry = (fields: ConnectFields, commandId: number): Uint8Array =>
  connectCommand.encode({
    opcode: FABRICS_OPCODE,
    flags: SGL_FLAGS,
    commandId,
    fctype: fabricsTypes.connect.opcode,
    sgl: encodeSgl({ kind: 'inCapsule', offset: 0, length: connectData.sizeBytes }),
    sqsize: 31,
    ...fields,
  });

export const connectBody = (fields: ConnectDataFields): Uint8Array =>
  connectData.encode({ hostid: new Uint8Array(16).fill(7), cntlid: CNTLID_DYNAMIC, hostnqn: HOST_NQN, ...fields });

export const propertyGetEntry = (offset: number, size: 0 | 1, commandId: number): Uint8Array =>
  propertyGetCommand.encode({
    opcode: FABRICS_OPCODE,
    flags: SGL_FLAGS,
    commandId,
    fctype: fabricsTypes.propertyGet.opcode,
    sgl: encodeSgl({ kind: 'none' }),
    attrib: size,
    ofst: offset,
  });

export const propertySetEntry = (offset: number, value: number, size: 0 | 1, commandId: number): Uint8Array =>
  propertySetCommand.encode({
    opcode: FABRICS_OPCODE,
    flags: SGL_FLAGS,
    commandId,
    fctype: fabricsTypes.propertySet.opcode,
    attrib: size,
    ofst: offset,
    value: BigInt(value),
  });
