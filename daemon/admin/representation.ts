import { Packr } from 'msgpackr';
import { mediaTypes } from '../../spec/admin-api.ts';
import { HttpError } from './error-map.ts';

/** How a body is written. */
export interface Representation {
  readonly mediaType: string;
  write(value: unknown): string | Buffer;
}

// Plain maps: readable by any msgpack implementation, unlike msgpackr's records.
const packer = new Packr({ useRecords: false, variableMapSize: true });

const msgpack: Representation = { mediaType: mediaTypes.msgpack, write: (value) => packer.pack(value) };
const json: Representation = { mediaType: mediaTypes.json, write: (value) => JSON.stringify(value) };

const names: Readonly<Record<string, Representation>> = {
  'application/json': json,
  'application/msgpack': msgpack,
  'application/x-msgpack': msgpack,
  'application/vnd.msgpack': msgpack,
  'application/*': json,
  '*/*': json,
};
export const msgpackNames = Object.keys(names).filter((name) => names[name] === msgpack);

/** The representation that an Accept header prefers (RFC 9110, 12.5.1); JSON if it has no preference. */
export function chooseRepresentation(accept: string | undefined): Representation {
  if (accept === undefined || accept.trim() === '') return json;
  let best: Representation | undefined;
  let bestQuality = 0;
  for (const part of accept.split(',')) {
    const [name = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
    const quality = Number(parameters.find((text) => text.startsWith('q='))?.slice(2) ?? 1);
    const candidate = names[name];
    if (candidate && quality > bestQuality) {
      best = candidate;
      bestQuality = quality;
    }
  }
  if (!best) throw new HttpError('notAcceptable', accept, Object.values(mediaTypes).join(', '));
  return best;
}

/** Parses a msgpack body. */
export function readMsgpack(body: Buffer): unknown {
  try {
    return packer.unpack(body) as unknown;
  } catch (error) {
    throw new HttpError('malformedBody', `msgpack: ${error instanceof Error ? error.message : 'unreadable'}`);
  }
}
