import { type AdminErrorBody, type HttpErrorCode, httpErrorTable } from '../../spec/admin-api.ts';
import { errorTable } from '../../spec/errors.ts';
import { DriveError } from '../base/errors.ts';

export interface MappedError {
  readonly http: number;
  readonly body: AdminErrorBody;
  /** Whether it is a failure of ours, for the log. */
  readonly unexpected: boolean;
}

/** What Fastify's own refusals are in our table. */
const frameworkErrors: Readonly<Record<string, HttpErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'bodyTooLarge',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupportedMediaType',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'malformedBody',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'malformedBody',
  FST_ERR_CTP_INVALID_JSON_BODY: 'malformedBody',
  FST_ERR_BAD_URL: 'unknownPath',
  FST_ERR_MAX_PARAM_LENGTH: 'unknownPath',
};

/** What the schema compiler tells of a failure, by the keyword that failed. */
interface ValidationParameters {
  readonly additionalProperty?: string;
  readonly allowedValues?: readonly string[];
  readonly pattern?: string;
  readonly comparison?: string;
  readonly limit?: number;
  readonly type?: string;
}

interface ValidationFailure {
  readonly instancePath: string;
  readonly message?: string;
  readonly params: ValidationParameters;
}

/** Any failure of a request as a status and a body of one shape. Never a stack, never text of an unexpected error. */
export function mapError(error: unknown): MappedError {
  if (error instanceof DriveError) {
    return { http: errorTable[error.code].http, body: bodyOf(error), unexpected: false };
  }
  const { code, validation, validationContext } = error as {
    code?: string;
    validation?: readonly ValidationFailure[];
    validationContext?: string;
  };
  if (validation?.[0]) return validationError(validation[0], validationContext ?? 'request');
  if (error instanceof HttpError) {
    const { http } = httpErrorTable[error.code];
    const allowed = error.allowed === undefined ? {} : { allowed: error.allowed };
    return { http, body: { code: error.code, message: error.message, ...allowed }, unexpected: false };
  }
  const known = code === undefined ? undefined : frameworkErrors[code];
  if (known !== undefined) {
    return {
      http: httpErrorTable[known].http,
      body: { code: known, message: httpErrorTable[known].text },
      unexpected: false,
    };
  }
  return { http: 500, body: { code: 'internal', message: errorTable.internal.text }, unexpected: true };
}

/** What is allowed stands apart: behind "allowed: " in the detail, or it follows from the code. */
function bodyOf({ code, message }: DriveError): AdminErrorBody {
  const [text = message, stated] = message.split('; allowed: ');
  const allowed = stated ?? (code === 'unknownSequence' ? 'ids that GET /sequences lists' : undefined);
  return { code, message: text, ...(allowed === undefined ? {} : { allowed }) };
}

/** A refusal that only HTTP has. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  readonly code: HttpErrorCode;
  readonly allowed: string | undefined;

  constructor(code: HttpErrorCode, detail: string, allowed?: string) {
    super(`${httpErrorTable[code].text}: ${detail}`);
    this.code = code;
    this.allowed = allowed;
  }
}

function validationError(failure: ValidationFailure, context: string): MappedError {
  const { instancePath, message, params } = failure;
  const where = `${context}${instancePath.replaceAll('/', ' ')}`;
  const unknown = params.additionalProperty;
  const detail = unknown === undefined ? `${where} ${message ?? 'is wrong'}` : `${where} has no ${unknown}`;
  const allowed = allowedValues(params);
  return {
    http: errorTable.invalidField.http,
    body: {
      code: 'invalidField',
      message: `${errorTable.invalidField.text}: ${detail}`,
      ...(allowed === undefined ? {} : { allowed }),
    },
    unexpected: false,
  };
}

function allowedValues(params: ValidationParameters): string | undefined {
  const { allowedValues: values, pattern, comparison, limit, type } = params;
  if (values !== undefined) return values.join(', ');
  if (pattern !== undefined) return `text that matches ${pattern}`;
  if (limit !== undefined) return `${comparison ?? 'at most'} ${limit}`;
  return type;
}
