// Fills the tables of spec/*.md from the TypeScript tables (--write), or fails if they differ.
// A table stands between `<!-- table KIND NAME -->` and `<!-- end -->`; NAME is an export of spec/index.ts.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const hex = (value, digits = 2) => `${value.toString(16).toUpperCase().padStart(digits, '0')}h`;
const directions = ['none', 'host to drive', 'drive to host', 'both ways'];

function markdown(head, rows) {
  const escape = (cell) => String(cell).replaceAll('|', '\\|');
  const line = (cells) => `| ${cells.map(escape).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

/** Rows `field, type, meaning` of a JSON schema; fields of nested objects are dotted, those of lists bracketed. */
function schemaRows(schema, path = '') {
  const { type, properties, items, enum: values, description = '' } = schema;
  const own = path === '' ? [] : [[`\`${path}\``, values ? values.join(', ') : type, description]];
  if (type === 'array') return [...own, ...schemaRows(items, `${path}[]`).slice(items.type === 'object' ? 1 : 0)];
  if (properties === undefined) return own;
  const required = new Set(schema.required ?? []);
  const inner = Object.entries(properties).flatMap(([name, property]) => {
    const rows = schemaRows(property, path === '' ? name : `${path}.${name}`);
    if (!required.has(name) && rows[0]) rows[0][1] += ', may be absent';
    return rows;
  });
  return [...own, ...inner];
}

/** KIND -> rows of the table from one export. */
const kinds = {
  struct: (struct) =>
    markdown(
      ['offset', 'bytes', 'kind', 'field', 'meaning'],
      Object.entries(struct.fields).map(([name, field]) => [
        field.offset,
        field.width,
        field.kind,
        field.kind === 'reserved' ? '' : `\`${name}\``,
        field.meaning,
      ]),
    ),
  bits: (table) =>
    markdown(
      ['bits', 'field', 'meaning'],
      Object.entries(table).map(([name, { shift, width, meaning }]) => [
        width === 1 ? shift : `${shift + width - 1}:${shift}`,
        `\`${name}\``,
        meaning,
      ]),
    ),
  values: (table) =>
    markdown(
      ['value', 'name'],
      Object.entries(table).map(([name, value]) => [value, `\`${name}\``]),
    ),
  opcodes: (table) => {
    const rows = Object.values(table);
    const isTimed = rows.some(({ deviceLatency }) => deviceLatency);
    return markdown(
      ['opcode', 'command', 'data', ...(isTimed ? ['device latency in DW1'] : [])],
      rows.map(({ opcode, name, deviceLatency }) => [
        hex(opcode),
        name,
        directions[opcode & 3],
        ...(isTimed ? [deviceLatency ? 'yes' : ''] : []),
      ]),
    );
  },
  fabricsTypes: (table) =>
    markdown(
      ['type', 'command'],
      Object.values(table).map(({ opcode, name }) => [hex(opcode), name]),
    ),
  errors: (table) =>
    markdown(
      ['SCT', 'SC', 'code', 'text', 'HTTP', 'may succeed later'],
      Object.entries(table)
        .sort(([, a], [, b]) => a.sct - b.sct || a.sc - b.sc)
        .map(([code, row]) => [row.sct, hex(row.sc), `\`${code}\``, row.text, row.http, row.retry ? 'yes' : '']),
    ),
  limits: (table) =>
    markdown(
      ['limit', 'value'],
      Object.entries(table).map(([name, value]) => [`\`${name}\``, value]),
    ),
  quotas: (table) =>
    markdown(
      ['quota', 'without a word', 'meaning'],
      Object.entries(table).map(([name, { standard, meaning }]) => [`\`${name}\``, standard ?? 'none', meaning]),
    ),
  cns: (table) =>
    markdown(
      ['CNS', 'answer'],
      Object.values(table).map(({ cns, name }) => [hex(cns), name]),
    ),
  logPages: (table) =>
    markdown(
      ['page', 'bytes', 'name'],
      Object.values(table).map(({ lid, sizeBytes, name }) => [hex(lid), sizeBytes, name]),
    ),
  features: (table) =>
    markdown(
      ['feature', 'name', 'can be set'],
      Object.values(table).map(({ fid, name, changeable }) => [hex(fid), name, changeable ? 'yes' : 'no']),
    ),
  pduTypes: (table) =>
    markdown(
      ['type', 'PDU', 'HLEN', 'sent by'],
      Object.values(table).map(({ type, name, hlen, from }) => [hex(type), name, hlen, from]),
    ),
  properties: (table) =>
    markdown(
      ['offset', 'bytes', 'property', 'name', 'can be set'],
      Object.entries(table).map(([key, { offset, sizeBytes, writable, name }]) => [
        hex(offset),
        sizeBytes,
        key.toUpperCase(),
        name,
        writable ? 'yes' : 'no',
      ]),
    ),
  routes: (table) =>
    markdown(
      ['request', 'answer'],
      Object.values(table).map(({ method, path, summary }) => [`\`${method} ${path}\``, summary]),
    ),
  routeFields: (table) =>
    Object.values(table)
      .map(({ method, path, parameters, query, response }) => {
        const inputs = [...schemaRows(parameters.json), ...schemaRows(query.json)];
        const given = inputs.length === 0 ? '' : `\n\n${markdown(['parameter', 'type', 'meaning'], inputs)}`;
        const answer = response ? markdown(['field', 'type', 'meaning'], schemaRows(response.json)) : 'Plain text.';
        return `### ${method} ${path}${given}\n\n${answer}`;
      })
      .join('\n\n'),
  httpErrors: (table) =>
    markdown(
      ['HTTP', 'code', 'text'],
      Object.entries(table).map(([code, { http, text }]) => [http, `\`${code}\``, text]),
    ),
  metrics: (table) =>
    markdown(
      ['metric', 'type', 'labels', 'meaning'],
      Object.values(table).map(({ name, type, labels, help }) => [`\`${name}\``, type, labels.join(', '), help]),
    ),
  conformance: (table) =>
    markdown(
      ['', 'what', 'I/O', 'discovery', 'has it', 'tested in', ''],
      table.map(({ id, name, io, discovery, has, by, note }) => [id, name, io, discovery, has, by.join(', '), note]),
    ),
  commandStatuses: (table) =>
    markdown(
      ['set', 'command', 'statuses'],
      table.map(({ set, name, general, own }) => [set, name, [...new Set([...own, ...general])].join(', ')]),
    ),
  elementTypes: (table) =>
    markdown(
      ['code', 'type', 'bits', 'meaning'],
      Object.entries(table).map(([name, { code, bits, meaning }]) => [code, name, bits, meaning]),
    ),
};

const TABLE = /(<!-- table (\S+) (\S+) -->\n)[^]*?(<!-- end -->)/g;

/** The page with its tables as the contract has them now. */
export function withTables(page, contract) {
  return page.replace(TABLE, (_, open, kind, name, close) => {
    if (kinds[kind] === undefined) throw new Error(`no table kind ${kind}: ${Object.keys(kinds).join(', ')}`);
    if (contract[name] === undefined) throw new Error(`spec/index.ts exports no ${name}`);
    return `${open}\n${kinds[kind](contract[name])}\n\n${close}`;
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const contract = await import(new URL('../../.build/spec/index.js', import.meta.url));
  const folder = new URL('../../spec/', import.meta.url);
  const stale = [];
  for (const name of readdirSync(folder).filter((file) => file.endsWith('.md'))) {
    const present = readFileSync(new URL(name, folder), 'utf8');
    const wanted = withTables(present, contract);
    if (present === wanted) continue;
    if (process.argv.includes('--write')) writeFileSync(new URL(name, folder), wanted);
    else stale.push(name);
  }
  if (stale.length > 0) {
    console.error(`tables differ from spec/*.ts in ${stale.join(', ')}: node tools/build/spec-tables.mjs --write`);
    process.exit(1);
  }
}
