import { collectDefaultMetrics, type Gauge, Registry } from 'prom-client';
import {
  type HistogramSample,
  type MetricKey,
  type MetricRow,
  type MetricsSnapshot,
  metrics,
  type Sample,
} from '../../spec/metrics.ts';
import { assert } from '../base/assert.ts';

interface ExposedValue {
  readonly metricName?: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/**
 * Process metrics of prom-client that break the naming rules (a gauge that ends in `_total`); the one that replaces
 * them, nodejs_active_resources, stays.
 */
const unruly = ['nodejs_active_handles_total', 'nodejs_active_requests_total', 'nodejs_active_resources_total'];

/**
 * The metrics of `spec/metrics.ts`, with values from one snapshot per scrape, beside those of the process (memory, CPU,
 * event-loop lag, garbage collection). Nothing is counted here: rooms count, the snapshot carries it.
 */
export class MetricsRegistry {
  readonly #registry = new Registry();
  readonly #snapshot: () => MetricsSnapshot;
  #current: MetricsSnapshot = {};

  constructor(snapshot: () => MetricsSnapshot) {
    this.#snapshot = snapshot;
    collectDefaultMetrics({ register: this.#registry });
    for (const name of unruly) this.#registry.removeSingleMetric(name);
    for (const [key, row] of Object.entries(metrics) as [MetricKey, MetricRow][]) {
      const exposed = {
        name: row.name,
        help: row.help,
        type: row.type,
        get: () => Promise.resolve({ ...row, values: exposedValues(row, this.#current[key]) }),
      };
      // A registry asks its metrics for no more than this; prom-client's classes cannot show counts made elsewhere.
      this.#registry.registerMetric(exposed as unknown as Gauge);
    }
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** Names of all metrics, those of the process included. */
  names(): string[] {
    return this.#registry.getMetricsAsArray().map((metric) => metric.name);
  }

  /** The exposition text. The registry reads all values before it first awaits, so scrapes cannot mix snapshots. */
  scrape(): Promise<string> {
    this.#current = this.#snapshot();
    return this.#registry.metrics();
  }
}

function exposedValues(row: MetricRow, value: unknown): ExposedValue[] {
  if (value === undefined) return [];
  if (typeof value === 'number') return [{ labels: {}, value }];
  if (row.type === 'histogram') {
    return (value as readonly HistogramSample<string>[]).flatMap((sample) => histogramValues(row, sample));
  }
  return (value as readonly Sample<string>[]).map(({ labels, value: amount }) => ({ labels, value: amount }));
}

function histogramValues(row: MetricRow, sample: HistogramSample<string>): ExposedValue[] {
  const bounds = row.buckets ?? [];
  assert(sample.counts.length === bounds.length + 1, `${row.name}: ${sample.counts.length} counts`);
  const values: ExposedValue[] = [];
  let cumulative = 0;
  for (let i = 0; i < sample.counts.length; i++) {
    cumulative += sample.counts[i] ?? 0;
    const le = i < bounds.length ? String(bounds[i]) : '+Inf';
    values.push({ metricName: `${row.name}_bucket`, labels: { ...sample.labels, le }, value: cumulative });
  }
  values.push({ metricName: `${row.name}_sum`, labels: sample.labels, value: sample.sum });
  values.push({ metricName: `${row.name}_count`, labels: sample.labels, value: cumulative });
  return values;
}
