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
  opcodes: (table) =>
    markdown(
      ['opcode', 'command', 'data'],
      Object.values(table).map(({ opcode, name }) => [hex(opcode), name, directions[opcode & 3]]),
    ),
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
  elementTypes: (table) =>
    markdown(
      ['code', 'type', 'bytes', 'meaning'],
      Object.entries(table).map(([name, { code, sizeBytes, meaning }]) => [code, name, sizeBytes, meaning]),
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
