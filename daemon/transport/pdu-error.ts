import { fatalErrors } from '../../spec/pdu.ts';

/**
 * A PDU that breaks the protocol: the connection ends with C2HTermReq. `info` is the byte offset of the wrong field in
 * the PDU's header where `fes` has one; `header` is the header itself, which goes back to the host.
 */
export class PduError extends Error {
  override readonly name = 'PduError';
  readonly fes: number;
  readonly info: number;
  readonly header: Uint8Array;

  constructor(kind: keyof typeof fatalErrors, detail: string, info: number, header: Uint8Array) {
    super(detail);
    this.fes = fatalErrors[kind];
    this.info = info;
    this.header = header;
  }
}
