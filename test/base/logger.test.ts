import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLogger } from '../../daemon/base/logger.ts';

test('a log line is one JSON object with level, time, room and fields; lower levels are left out', () => {
  const lines: Record<string, unknown>[] = [];
  const logger = createLogger(
    { level: 'info', name: 'S1' },
    { write: (line) => lines.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const room = logger.child({ room: 'ftl' });
  room.debug({}, 'not shown');
  room.warn({ freeSuperblockCount: 3 }, 'few free superblocks');
  logger.error({ err: new Error('lost') }, 'failed');
  assert.equal(lines.length, 2);
  const [warning, failure] = lines;
  const { time, ...rest } = warning ?? {};
  assert.match(String(time), /^\d{4}-\d\d-\d\dT.*Z$/);
  const expected = { level: 'warn', name: 'S1', room: 'ftl', freeSuperblockCount: 3, msg: 'few free superblocks' };
  assert.deepEqual(rest, expected);
  assert.equal((failure?.['err'] as { message: string } | undefined)?.message, 'lost');
});
