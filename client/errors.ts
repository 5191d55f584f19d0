import { decodeStatus, type ErrorCode, errorCodeOf, errorTable, statusName } from '../spec/index.ts';

/**
 * What the SDK throws besides RangeError and TypeError (arguments that no drive could accept) and the reason of an
 * aborted signal. Match on `code`, which is stable, never on the text.
 */
export abstract class DriveClientError extends Error {
  abstract readonly code: string;
  /** Whether the same request can succeed later without being changed. */
  abstract readonly retry: boolean;
}

/** What a failed completion says. */
export interface CommandFailure {
  readonly opcodeName: string;
  /** What the command was about: "sequence 5, layer 2, position 40". May be empty. */
  readonly subject: string;
  /** Status field of the completion (bytes 14 and 15). */
  readonly status: number;
  readonly dw0: number;
  readonly dw1: number;
  /** Whether it was a Fabrics command, whose status codes overlap the others'. */
  readonly fabrics?: boolean;
}

/** The drive answered a command with a status other than success. */
export class DriveCommandError extends DriveClientError {
  override readonly name = 'DriveCommandError';
  /** Row of `spec/errors.ts`, or "unknownStatus" for a status that is not in it. */
  readonly code: ErrorCode | 'unknownStatus';
  readonly retry: boolean;
  readonly opcodeName: string;
  /** What the command was about: "sequence 5, layer 2". May be empty. */
  readonly subject: string;
  /** Status code type and status code of the standard. */
  readonly sct: number;
  readonly sc: number;
  /** Do not retry. */
  readonly dnr: boolean;
  /** 64 bits beside the status: the index of the entry, a page number. Low and high half. */
  readonly dw0: number;
  readonly dw1: number;

  constructor(failure: CommandFailure) {
    const { sct, sc, dnr } = decodeStatus(failure.status);
    const code = errorCodeOf(sct, sc);
    const text = code === undefined ? statusName(sct, sc, failure.fabrics) : errorTable[code].text;
    const subject = failure.subject === '' ? '' : ` (${failure.subject})`;
    // A position says something even if it is 0.
    const isPosition = code === 'appendConflict' || code === 'appendGap';
    const hasResult = isPosition || failure.dw0 !== 0 || failure.dw1 !== 0;
    const result = hasResult ? `, result ${failure.dw1 * 2 ** 32 + failure.dw0}` : '';
    super(`${failure.opcodeName}${subject}: ${text} [sct ${sct}, sc ${sc.toString(16).padStart(2, '0')}h${result}]`);
    this.code = code ?? 'unknownStatus';
    this.retry = dnr === 0 && (code === undefined || errorTable[code].retry);
    this.opcodeName = failure.opcodeName;
    this.subject = failure.subject;
    this.sct = sct;
    this.sc = sc;
    this.dnr = dnr === 1;
    this.dw0 = failure.dw0;
    this.dw1 = failure.dw1;
  }
}

/**
 * The connection to the drive is gone; the association with its regions and result slots is, too. Whether a command
 * that was under way took effect is unknown; appends and reads may simply be repeated on a new connection.
 */
export class DriveDisconnectedError extends DriveClientError {
  override readonly name = 'DriveDisconnectedError';
  readonly code = 'disconnected';
  readonly retry = true;
  readonly address: string;

  constructor(address: string, reason: string, cause?: unknown) {
    super(`connection to the drive at ${address} lost: ${reason}`, cause === undefined ? {} : { cause });
    this.address = address;
  }
}

/** No drive could be reached at an address, or none found. The text says what to start. */
export class DriveUnreachableError extends DriveClientError {
  override readonly name = 'DriveUnreachableError';
  readonly code = 'unreachable';
  readonly retry = true;
}

/** The peer broke the protocol; the connection is closed. */
export class DriveProtocolError extends DriveClientError {
  override readonly name = 'DriveProtocolError';
  readonly code = 'protocol';
  readonly retry = false;
}

/** Host or drive did not prove who it is, or this client has no secret where the drive wants one. The connection is closed. */
export class DriveAuthenticationError extends DriveClientError {
  override readonly name = 'DriveAuthenticationError';
  readonly code = 'authentication';
  readonly retry = false;
}

/** Data that came from the drive does not fit its digest: it changed on the way. The connection goes on. */
export class DriveDigestError extends DriveClientError {
  override readonly name = 'DriveDigestError';
  readonly code = 'dataDigest';
  readonly retry = true;
}

/** A command got no answer in the time that its caller gave. It may still take effect. */
export class DriveTimeoutError extends DriveClientError {
  override readonly name = 'DriveTimeoutError';
  readonly code = 'timeout';
  readonly retry = true;
}

/** A bound of the client: too many commands waiting, no room left for prepared requests. */
export class DriveLimitError extends DriveClientError {
  override readonly name = 'DriveLimitError';
  readonly code = 'clientLimit';
  readonly retry = true;
}

/** Memory regions can't be used here: another machine, or no access to the file. */
export class RegionUnavailableError extends DriveClientError {
  override readonly name = 'RegionUnavailableError';
  readonly code = 'regionUnavailable';
  readonly retry = false;
}

/** The control plane refused a request. */
export class AdminRequestError extends DriveClientError {
  override readonly name = 'AdminRequestError';
  /** Row of `spec/errors.ts` or of `httpErrorTable` in `spec/admin-api.ts`. */
  readonly code: string;
  readonly retry: boolean;
  readonly httpStatus: number;
  readonly allowed: string | undefined;

  constructor(httpStatus: number, body: { code: string; message: string; allowed?: string | undefined }) {
    super(body.message + (body.allowed === undefined ? '' : `; allowed: ${body.allowed}`));
    this.code = body.code;
    this.httpStatus = httpStatus;
    this.allowed = body.allowed;
    this.retry = (errorTable as Record<string, { retry: boolean }>)[body.code]?.retry ?? httpStatus >= 500;
  }
}
