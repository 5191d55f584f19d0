import assert from 'node:assert/strict';
import { DriveError } from '../../daemon/base/errors.ts';
import type { ErrorCode } from '../../spec/errors.ts';

/** For assert.throws and assert.rejects: a DriveError of that code whose text and result match. */
export const failsWith =
  (code: ErrorCode, text: RegExp, result?: number) =>
  (error: unknown): boolean => {
    assert.ok(error instanceof DriveError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, text);
    if (result !== undefined) assert.equal(error.result, result);
    return true;
  };
