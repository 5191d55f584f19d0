import { errorTable, type ErrorCode } from '../../spec/errors.ts';

/**
 * A condition the drive can name: bad input, a full drive, a page that can't be read. `code` is a row of the error table
 * (which gives the NVMe status and the HTTP status); `detail` says which value and what is allowed.
 */
export class DriveError extends Error {
  override readonly name = 'DriveError';
  readonly code: ErrorCode;
  /** 64 bits for the completion's DW0 and DW1 (a page number, an entry index). */
  readonly result: number;

  constructor(code: ErrorCode, detail: string, options: { result?: number; cause?: unknown } = {}) {
    super(`${errorTable[code].text}: ${detail}`, options.cause === undefined ? {} : { cause: options.cause });
    this.code = code;
    this.result = options.result ?? 0;
  }
}
