import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeStatus, encodeStatus, statusCodeOf } from '../../spec/completion-entry.ts';
import { type ErrorCode, errorTable } from '../../spec/errors.ts';
import { errorCodeOf, statusName } from '../../spec/status.ts';

const codes = Object.keys(errorTable) as ErrorCode[];

test('a status leads back to its error, and to no other', () => {
  for (const code of codes) assert.equal(errorCodeOf(errorTable[code].sct, errorTable[code].sc), code);
  assert.equal(errorCodeOf(0, 0), undefined);
  assert.equal(errorCodeOf(3, 0), undefined);
});

test('statuses go through the completion entry unchanged', () => {
  for (const code of codes) {
    const { sct, sc } = errorTable[code];
    for (const doNotRetry of [false, true]) {
      const status = encodeStatus(sct, sc, doNotRetry);
      assert.deepEqual(decodeStatus(status), { phase: 0, sc, sct, crd: 0, more: 0, dnr: doNotRetry ? 1 : 0 });
      assert.equal(statusCodeOf(status), (sct << 8) | sc);
    }
  }
  // The formula of the NVMe/TCP wire: (SCT << 8 | SC) << 1, DNR in bit 15.
  assert.equal(encodeStatus(1, 0x82, true), (((1 << 8) | 0x82) << 1) | 0x8000);
});

test('errors have sensible HTTP statuses, and codes of ours stand where the standard leaves room', () => {
  for (const code of codes) {
    const { http, sct, sc } = errorTable[code];
    assert(http >= 400 && http < 600, `${code}: HTTP ${http}`);
    if (sct === 1 && sc >= 0xc0) continue;
    if (sct === 7) continue;
    assert.notEqual(
      statusName(sct, sc, true),
      errorTable[code].text,
      `${code}: the standard has no name for ${sct}/${sc}`,
    );
  }
});

test('every status has a name for people', () => {
  assert.equal(statusName(0, 0), 'Successful Completion');
  assert.equal(statusName(1, 0x80), 'Conflicting Attributes');
  assert.equal(statusName(1, 0x80, true), 'Connect Incompatible Format');
  assert.equal(statusName(1, 0xc3), errorTable.appendGap.text);
  assert.equal(statusName(2, 0x81), 'Unrecovered Read Error');
  assert.equal(statusName(7, 0xfe), 'status 7h/feh');
});
