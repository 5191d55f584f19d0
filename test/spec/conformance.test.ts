/** The conformance tables say what is true: files that exist, and every command, page and feature of the drive. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as tables from '../../spec/conformance.ts';
import { properties } from '../../spec/fabrics.ts';
import { features } from '../../spec/features.ts';
import { cnsValues } from '../../spec/identify.ts';
import { discoveryLogPages, logPages } from '../../spec/log-pages.ts';
import { adminOpcodes, discoveryOpcodes, fabricsTypes, nvmOpcodes } from '../../spec/opcodes.ts';

const VENDOR = 0xc0;
const rows = Object.entries(tables).flatMap(([table, list]) => list.map((row) => ({ table, ...row })));
const folder = fileURLToPath(new URL('../../../test/', import.meta.url));

test('every file that a row names is there', () => {
  for (const { table, name, by } of rows) {
    for (const file of by) {
      const exists = existsSync(`${folder}${file}.test.ts`) || existsSync(`${folder}${file}.ts`);
      assert.ok(exists, `${table} ${name}: test/${file} is not there`);
    }
  }
});

test('what is mandatory is there and tested, or says why not; what is prohibited is not there', () => {
  for (const { table, name, io, discovery, has, by, note } of rows) {
    const label = `${table} ${name}`;
    const hasIo = has === 'both' || has === 'I/O';
    const hasDiscovery = has === 'both' || has === 'discovery';
    if ((io === 'M' && !hasIo) || (discovery === 'M' && !hasDiscovery))
      assert.ok(note, `${label} is missing without a reason`);
    if (io === 'P' && discovery === 'P' && has !== 'neither') assert.ok(note, `${label} is prohibited`);
    if ((io === 'M' || discovery === 'M') && has !== 'neither') {
      assert.ok(by.length > 0 || note, `${label} is mandatory and names no test`);
    }
  }
});

/** Identifiers of a table's rows that the drive has, by kind of controller. */
const listed = (list: readonly tables.ConformanceRow[], kind: 'I/O' | 'discovery'): number[] =>
  list
    .filter(({ has }) => has === 'both' || has === kind)
    .map(({ id }) => Number.parseInt(id, 16))
    .sort((a, b) => a - b);
const sorted = (values: Iterable<number>): number[] =>
  [...values].filter((value) => value < VENDOR).sort((a, b) => a - b);
const opcodes = (table: Readonly<Record<string, { opcode: number }>>) =>
  Object.values(table).map(({ opcode }) => opcode);

test('every command, page, feature and property of the drive has its row, and no other says that it is there', () => {
  assert.deepEqual(listed(tables.adminConformance, 'I/O'), sorted(opcodes(adminOpcodes)));
  assert.deepEqual(listed(tables.adminConformance, 'discovery'), sorted(opcodes(discoveryOpcodes)));
  assert.deepEqual(listed(tables.nvmConformance, 'I/O'), sorted(opcodes(nvmOpcodes)));
  assert.deepEqual(listed(tables.fabricsConformance, 'I/O'), sorted(opcodes(fabricsTypes)));
  const pages = (table: Readonly<Record<string, { lid: number }>>) =>
    sorted(Object.values(table).map(({ lid }) => lid));
  assert.deepEqual(listed(tables.logPageConformance, 'I/O'), pages(logPages));
  assert.deepEqual(listed(tables.logPageConformance, 'discovery'), pages(discoveryLogPages));
  assert.deepEqual(listed(tables.featureConformance, 'I/O'), sorted(Object.values(features).map(({ fid }) => fid)));
  assert.deepEqual(listed(tables.identifyConformance, 'I/O'), sorted(Object.values(cnsValues).map(({ cns }) => cns)));
  assert.deepEqual(
    listed(tables.propertyConformance, 'I/O'),
    sorted(Object.values(properties).map(({ offset }) => offset)),
  );
});
