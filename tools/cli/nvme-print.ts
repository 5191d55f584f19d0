/** Identify structures and log pages as nvme-cli prints them: its field names, in the order of the bytes. */
import { printLine } from './output.ts';

/** Fields that nvme-cli prints in hexadecimal: bit masks and ids. */
const hexadecimal = new Set([
  'vid',
  'ssvid',
  'ieee',
  'cmic',
  'cntlid',
  'ver',
  'rtd3r',
  'rtd3e',
  'oaes',
  'ctratt',
  'rrls',
  'nvmsr',
  'vwci',
  'mec',
  'oacs',
  'frmw',
  'lpa',
  'avscc',
  'apsta',
  'sanicap',
  'anacap',
  'sqes',
  'cqes',
  'oncs',
  'fuses',
  'fna',
  'vwc',
  'icsvscc',
  'nwpc',
  'cdfs',
  'sgls',
  'fcatt',
  'ofcs',
  'nsze',
  'ncap',
  'nuse',
  'nsfeat',
  'flbas',
  'mc',
  'dpc',
  'dps',
  'nmic',
  'rescap',
  'fpi',
  'nsattr',
  'elementTypeMask',
  'attendModeMask',
  'attendFlagMask',
]);

const NAME_WIDTH = 9;

/** The fields that mean something, by name; raw bytes as hexadecimal text. */
export function structFields(value: object, leaveOut: readonly string[] = []): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value)
      .filter(([name]) => !leaveOut.includes(name))
      .map(([name, field]) => [name, field instanceof Uint8Array ? Buffer.from(field).toString('hex') : field]),
  );
}

export function printStruct(title: string, fields: Readonly<Record<string, unknown>>): void {
  printLine(title);
  const width = Math.max(NAME_WIDTH, ...Object.keys(fields).map((name) => name.length));
  for (const [name, value] of Object.entries(fields)) printLine(`${name.padEnd(width)} : ${fieldText(name, value)}`);
}

function fieldText(name: string, value: unknown): string {
  const isNumber = typeof value === 'number' || typeof value === 'bigint';
  if (isNumber && hexadecimal.has(name))
    return name === 'ieee' ? value.toString(16).padStart(6, '0') : `0x${value.toString(16)}`;
  return String(value);
}

/** camelCase -> camel_case, as nvme-cli's JSON names them. */
export const snakeCase = (name: string): string => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

const DATA_UNIT_BYTES = 512_000;

/** 1234 data units -> "631.81 MB". */
export function dataUnitsText(units: number | bigint): string {
  const bytes = Number(units) * DATA_UNIT_BYTES;
  const steps = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  const step = bytes === 0 ? 0 : Math.min(steps.length - 1, Math.floor(Math.log10(bytes) / 3));
  return `${(bytes / 1000 ** step).toFixed(2)} ${steps[step]}`;
}
