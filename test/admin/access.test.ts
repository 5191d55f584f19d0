import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { type AccessRules, BearerToken, refusalOf, type RequestHead } from '../../daemon/admin/access.ts';

const TEXT = 'abcdefghijklmnopqrstuvwxyz012345-._~+/=';
const token = new BearerToken(TEXT);
const tcp: AccessRules = { by: 'token', names: ['drive1.rack'], openMetrics: false };
const socket: AccessRules = { by: 'socket', names: [], openMetrics: false };
const get: RequestHead = {
  method: 'GET',
  path: '/drive',
  host: '127.0.0.1:4480',
  origin: undefined,
  authorization: undefined,
};
const bearer = `Bearer ${TEXT}`;
const codeOf = (head: Partial<RequestHead>, rules = tcp, known: BearerToken | undefined = token): string | undefined =>
  refusalOf({ ...get, ...head }, rules, known)?.code;

test('with a token: everything wants it but health, and metrics if they are open', () => {
  for (const method of ['GET', 'HEAD', 'POST', 'DELETE', 'PUT']) {
    assert.equal(codeOf({ method }), 'tokenRequired');
    assert.equal(codeOf({ method, authorization: bearer }), undefined);
  }
  for (const path of ['/health', '/health/']) assert.equal(codeOf({ path }), undefined);
  assert.equal(codeOf({ path: '/health', method: 'POST' }), 'tokenRequired');
  for (const path of ['/healthy', '//health', '/health/x', '/metrics', '/', ''])
    assert.equal(codeOf({ path }), 'tokenRequired');
  assert.equal(codeOf({ path: '/metrics' }, { ...tcp, openMetrics: true }), undefined);
});

test('without one: reads are open, changes are not', () => {
  const without = (method: string) => refusalOf({ ...get, method }, tcp, undefined)?.code;
  assert.deepEqual(['GET', 'HEAD', 'POST', 'DELETE', 'PUT', 'PATCH'].map(without), [
    undefined,
    undefined,
    ...Array.from({ length: 4 }, () => 'changesNotAllowed'),
  ]);
});

test('the socket asks for nothing, and still lets no web page change anything', () => {
  assert.equal(codeOf({ method: 'POST', host: 'whatever' }, socket), undefined);
  assert.equal(codeOf({ method: 'POST', origin: 'http://evil' }, socket), 'forbiddenOrigin');
  assert.equal(codeOf({ method: 'POST', origin: 'http://evil', authorization: bearer }), 'forbiddenOrigin');
});

test('no text but the token is the token', () => {
  assert.ok(token.isIn(bearer) && token.isIn(`bearer  ${TEXT} `));
  for (const wrong of [
    undefined,
    '',
    TEXT,
    'Bearer',
    'Bearer ',
    `Basic ${TEXT}`,
    `${bearer}x`,
    `${bearer} x`,
    bearer.slice(0, -1),
  ]) {
    assert.ok(!token.isIn(wrong), wrong);
  }
  fc.assert(
    fc.property(fc.string({ maxLength: 60 }), (text) => {
      fc.pre(text.trim() !== TEXT);
      assert.ok(!token.isIn(`Bearer ${text}`));
    }),
  );
  const shown = inspect(token, { showHidden: true, depth: 5 }) + JSON.stringify(token);
  assert.ok(!shown.includes(TEXT.slice(0, 8)));
});

test('tokens that could be guessed, or can not stand in a header, are refused without a character of them', () => {
  for (const text of ['', 'short', 'x'.repeat(31), 'x'.repeat(1025), `${'y'.repeat(40)}\n`, `${'y'.repeat(40)} z`]) {
    assert.throws(
      () => new BearerToken(text),
      (error: Error) => error instanceof RangeError && !error.message.includes('xxx') && !error.message.includes('yyy'),
    );
  }
});

test('names by which the drive is not called: what a web page could make mean this machine', () => {
  const ours = [
    '127.0.0.1',
    '127.0.0.1:80',
    'localhost',
    'LOCALHOST:1',
    'localhost.',
    '[::1]:4480',
    '192.0.2.7',
    'Drive1.Rack:4480',
  ];
  for (const host of ours) assert.equal(codeOf({ host, path: '/health' }), undefined, host);
  const others = [
    undefined,
    '',
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.nip.io',
    'drive1',
    '[::1',
    'a:b:c',
    '127.0.0.1:x',
  ];
  for (const host of others) {
    assert.equal(codeOf({ host, path: '/health', authorization: bearer }), 'unknownHost', host);
    assert.equal(
      refusalOf({ ...get, ...(host === undefined ? { host: undefined } : { host }) }, tcp, undefined)?.code,
      'unknownHost',
    );
  }
});
