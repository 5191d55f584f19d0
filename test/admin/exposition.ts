import assert from 'node:assert/strict';

export interface ExpositionSample {
  readonly name: string;
  readonly labels: Record<string, string>;
  readonly value: number;
}

export interface ExpositionFamily {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: ExpositionSample[];
}

/**
 * A strict reader of the Prometheus text format 0.0.4: HELP then TYPE before samples, each family once, sample names
 * that belong to the family, no label twice, no series twice, histograms cumulative and complete. It applies the naming
 * rules that `promtool check metrics` applies, too.
 */
export function parseExposition(text: string): ExpositionFamily[] {
  assert.ok(text.endsWith('\n'), 'the last line ends');
  const families: ExpositionFamily[] = [];
  const series = new Set<string>();
  let pendingHelp: { name: string; help: string } | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const help = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
    const type = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram|summary)$/.exec(line);
    if (help) {
      pendingHelp = { name: help[1] ?? '', help: help[2] ?? '' };
    } else if (type) {
      assert.equal(pendingHelp?.name, type[1], `HELP before TYPE: ${line}`);
      assert.ok(!families.some(({ name }) => name === type[1]), `family twice: ${line}`);
      families.push({ name: type[1] ?? '', type: type[2] ?? '', help: pendingHelp?.help ?? '', samples: [] });
    } else {
      const family = families.at(-1);
      assert.ok(family, `sample before any family: ${line}`);
      const sample = parseSample(line);
      assert.ok(belongs(sample.name, family), `${sample.name} is not of family ${family.name}`);
      const identity = `${sample.name} ${labelText(sample.labels)}`;
      assert.ok(!series.has(identity), `series twice: ${identity}`);
      series.add(identity);
      family.samples.push(sample);
    }
  }
  families.forEach(checkFamily);
  return families;
}

function parseSample(line: string): ExpositionSample {
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (-?[0-9.e+-]+|[Nn]a[Nn]|[+-]Inf)$/.exec(line);
  assert.ok(match, `not a sample: ${line}`);
  const labels: Record<string, string> = {};
  let rest = match[2] ?? '';
  while (rest !== '') {
    const pair = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest);
    assert.ok(pair, `not a label: ${rest} in ${line}`);
    assert.ok(!Object.hasOwn(labels, pair[1] ?? ''), `label twice in ${line}`);
    labels[pair[1] ?? ''] = (pair[2] ?? '').replace(/\\(["\\n])/g, (_, c: string) => (c === 'n' ? '\n' : c));
    rest = rest.slice(pair[0].length);
  }
  const value = Number((match[3] ?? '').replace('Inf', 'Infinity'));
  return { name: match[1] ?? '', labels, value };
}

function belongs(sample: string, { name, type }: ExpositionFamily): boolean {
  if (type === 'histogram') return [`${name}_bucket`, `${name}_sum`, `${name}_count`].includes(sample);
  if (type === 'summary') return [name, `${name}_sum`, `${name}_count`].includes(sample);
  return sample === name;
}

function checkFamily({ name, type, samples }: ExpositionFamily): void {
  assert.equal(name.endsWith('_total'), type === 'counter', `${name}: _total if and only if a counter`);
  if (type === 'counter') for (const { value } of samples) assert.ok(value >= 0, `${name} is negative`);
  if (type !== 'histogram') return;
  const groups = new Map<string, ExpositionSample[]>();
  for (const sample of samples) {
    const { le: _le, ...labels } = sample.labels;
    const key = labelText(labels);
    groups.set(key, [...(groups.get(key) ?? []), sample]);
  }
  for (const group of groups.values()) {
    const buckets = group.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => Number((labels['le'] ?? '').replace('Inf', 'Infinity')));
    assert.deepEqual(
      bounds,
      [...bounds].sort((a, b) => a - b),
      `${name}: bounds ascend`,
    );
    assert.equal(bounds.at(-1), Number.POSITIVE_INFINITY, `${name}: last bucket is +Inf`);
    buckets.reduce((last, { value }) => {
      assert.ok(value >= last, `${name}: buckets are cumulative`);
      return value;
    }, 0);
    const total = group.find((sample) => sample.name === `${name}_count`)?.value;
    assert.equal(buckets.at(-1)?.value, total, `${name}: +Inf bucket is the count`);
    assert.ok(
      group.some((sample) => sample.name === `${name}_sum`),
      `${name} has a sum`,
    );
  }
}

const labelText = (labels: Record<string, string>): string =>
  Object.keys(labels)
    .sort((a, b) => (a < b ? -1 : 1))
    .map((name) => `${name}=${labels[name]}`)
    .join();
