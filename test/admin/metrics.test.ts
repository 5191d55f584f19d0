import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { MetricsRegistry } from '../../daemon/admin/metrics-registry.ts';
import { type MetricRow, metrics } from '../../spec/metrics.ts';
import { parseExposition } from './exposition.ts';
import { statistics } from './fake-drive-view.ts';

const rows: readonly MetricRow[] = Object.values(metrics);

test('the registry exposes exactly the table, beside the metrics of the process', () => {
  const names = new MetricsRegistry(() => ({})).names();
  const own = names.filter((name) => name.startsWith('attndrive_'));
  assert.deepEqual(own.sort(), rows.map(({ name }) => name).sort());
  const others = names.filter((name) => !name.startsWith('attndrive_'));
  assert.ok(others.every((name) => /^(process|nodejs)_/.test(name)));
  for (const needed of [
    'nodejs_eventloop_lag_seconds',
    'nodejs_gc_duration_seconds',
    'process_resident_memory_bytes',
  ]) {
    assert.ok(others.includes(needed), needed);
  }
});

test('names follow the rules', () => {
  const units = /_(seconds|bytes|ratio)(_total)?$/;
  const wrongUnits =
    /_(ms|us|ns|s|msec|usec|milliseconds|microseconds|nanoseconds|kb|mb|gb|kib|mib|minutes|hours|percent)(_|$)/;
  assert.equal(new Set(rows.map(({ name }) => name)).size, rows.length);
  for (const { name, type, help, labels, buckets } of rows) {
    assert.match(name, /^attndrive_[a-z][a-z0-9_]*$/);
    assert.equal(name.endsWith('_total'), type === 'counter', `${name}: _total is for counters, all of them`);
    assert.doesNotMatch(name, wrongUnits, `${name}: base units only`);
    assert.doesNotMatch(
      name,
      /_(count|sum|bucket|counter|gauge|histogram)$/,
      `${name}: reserved suffix or type in name`,
    );
    if (/latency|uptime|lag|size/.test(name)) assert.match(name, units, `${name}: needs a unit`);
    assert.match(help, /^[A-Z0-9].*\.$/, `${name}: help is a sentence`);
    for (const label of labels) assert.match(label, /^(?!le$|quantile$|__)[a-z_]+$/, `${name}: label ${label}`);
    assert.equal(type === 'histogram', buckets !== undefined, name);
    if (buckets)
      assert.deepEqual(
        [...buckets],
        [...buckets].sort((a, b) => a - b),
        `${name}: buckets ascend`,
      );
  }
});

test('the exposition text is well-formed and carries the values of the snapshot', async () => {
  const families = parseExposition(await new MetricsRegistry(() => statistics).scrape());
  const value = (name: string, labels: Record<string, string> = {}) =>
    families
      .flatMap((family) => family.samples)
      .find((sample) => sample.name === name && sameLabels(sample.labels, labels))?.value;
  assert.equal(value('attndrive_ready'), 1);
  assert.equal(value('attndrive_info', { version: '0.1.0', kernels: 'wasm', isa: 'simd128', serial: 'S"1\\' }), 1);
  const append = { queue: 'kv', opcode: 'KV Append' };
  assert.equal(value('attndrive_commands_total', { ...append, status: 'success' }), 12);
  assert.equal(value('attndrive_commands_total', { ...append, status: 'appendGap' }), 1);
  const bucket = (le: string) => value('attndrive_command_latency_seconds_bucket', { queue: 'kv', opcode: 'ATTN', le });
  assert.deepEqual([bucket('0.00001'), bucket('0.00002'), bucket('10'), bucket('+Inf')], [3, 5, 5, 6]);
  assert.equal(value('attndrive_command_latency_seconds_count', { queue: 'kv', opcode: 'ATTN' }), 6);
  assert.equal(value('attndrive_command_latency_seconds_sum', { queue: 'kv', opcode: 'ATTN' }), 11.5);
});

test('promtool accepts the metrics', async (t) => {
  const text = await new MetricsRegistry(() => statistics).scrape();
  const run = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  if (run.error) {
    t.skip('promtool is not installed (Debian: prometheus)');
    return;
  }
  assert.equal(run.status, 0, run.stdout + run.stderr);
});

function sameLabels(a: Record<string, string>, b: Record<string, string>): boolean {
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => a[key] === b[key]);
}
