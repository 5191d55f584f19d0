import type { NetConnectOpts } from 'node:net';

/** Where a drive listens. */
export type DriveAddress =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

export const NVME_TCP_PORT = 4420;

/** Parses `unix:PATH` or `tcp:HOST[:PORT]` (IPv6 in brackets; port 4420 by default). RangeError names what is wrong. */
export function parseAddress(text: string): DriveAddress {
  if (text.startsWith('unix:') && text.length > 5) return { kind: 'unix', path: text.slice(5) };
  const match = /^tcp:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[3] ?? NVME_TCP_PORT);
  if (!match || port === 0 || port > 65_535) {
    throw new RangeError(`drive address "${text}"; allowed: unix:PATH, tcp:HOST:PORT with port 1 to 65535`);
  }
  return { kind: 'tcp', host: match[1] ?? match[2] ?? '', port };
}

export function formatAddress(address: DriveAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return `tcp:${address.host.includes(':') ? `[${address.host}]` : address.host}:${address.port}`;
}

export const connectOptions = (address: DriveAddress): NetConnectOpts =>
  address.kind === 'unix'
    ? { path: address.path }
    : { host: address.host, port: address.port, noDelay: true, keepAlive: true };
