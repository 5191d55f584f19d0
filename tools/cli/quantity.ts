/** Sizes, counts and times as people write and read them. */
import { InvalidArgumentError } from 'commander';

const binary = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const;
const decimal = { kB: 1e3, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 } as const;
const SIZE_BYTES_MAX = 16 * binary.TiB;
const factors: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  ...binary,
  ...decimal,
  K: binary.KiB,
  k: binary.KiB,
  M: binary.MiB,
  G: binary.GiB,
  T: binary.TiB,
};

/** `256MiB`, `1GiB`, `1.5G` (binary), `10GB` (decimal) or bytes. For commander: throws InvalidArgumentError. */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim());
  const factor = factors[match?.[2] ?? '?'];
  const bytes = match && factor !== undefined ? Number(match[1]) * factor : Number.NaN;
  if (bytes > SIZE_BYTES_MAX) throw new InvalidArgumentError('The largest size is 16TiB.');
  if (!Number.isSafeInteger(bytes))
    throw new InvalidArgumentError('A size is a whole number of bytes: 4096, 64KiB, 256MiB, 1GiB.');
  return bytes;
}

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };
const INTERVAL_SECONDS_MAX = 366 * 86_400;

/** `7d`, `12h`, `30m`, `90s` -> seconds; `off` -> 0. For commander: throws InvalidArgumentError. */
export function parseIntervalSeconds(text: string): number {
  if (text === 'off') return 0;
  const match = /^(\d{1,9})([smhd])$/.exec(text.trim());
  const seconds = match ? Number(match[1]) * unitSeconds[match[2]!]! : 0;
  if (seconds < 1 || seconds > INTERVAL_SECONDS_MAX)
    throw new InvalidArgumentError('A time is 1s to 366d, as in 90s, 30m, 12h, 7d; or off.');
  return seconds;
}

/** For commander: an option's parser for whole numbers within bounds. */
export function integerWithin(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^-?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
    if (!Number.isSafeInteger(value) || value < min || value > max) {
      throw new InvalidArgumentError(`Whole numbers from ${min} to ${max} are allowed.`);
    }
    return value;
  };
}

/** Sequence ids are 64 bits. */
export function parseSequenceId(text: string): bigint {
  if (/^(\d{1,20}|0x[0-9a-fA-F]{1,16})$/.test(text)) {
    const id = BigInt(text);
    if (id > 0n && id < 2n ** 64n) return id;
  }
  throw new InvalidArgumentError('A sequence id is a number from 1 to 18446744073709551615.');
}

/** 1536 -> "1.5 KiB". */
export function bytesText(bytes: number): string {
  const units = Object.entries(binary).reverse();
  const unit = units.find(([, factor]) => bytes >= factor);
  if (!unit) return `${bytes} B`;
  const value = bytes / unit[1];
  return `${value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1)} ${unit[0]}`;
}

/** 1234567 -> "1,234,567". */
export const countText = (count: number | bigint): string => String(count).replace(/\B(?=(\d{3})+$)/g, ',');

/** Milliseconds -> "412 µs", "3.1 ms", "12.0 s". */
export function durationText(milliseconds: number): string {
  if (milliseconds < 1) return `${(milliseconds * 1000).toFixed(0)} µs`;
  if (milliseconds < 1000) return `${milliseconds.toFixed(milliseconds < 10 ? 2 : 1)} ms`;
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

/** How many times as much: 36.2 -> "36 x", 2.34 -> "2.3 x", 0.412 -> "0.41 x". */
export const timesText = (ratio: number): string => `${ratio >= 10 ? ratio.toFixed(0) : ratio.toPrecision(2)} x`;

/** 0.1234 -> "12.3 %". */
export const percentText = (share: number): string => `${(100 * share).toFixed(1)} %`;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
