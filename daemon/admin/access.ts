import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { adminRoutes } from '../../spec/admin-api.ts';
import { limits } from '../../spec/limits.ts';
import { HttpError } from './error-map.ts';

const digestOf = (text: string): Buffer => createHash('sha256').update(text).digest();

/** A token that requests carry as `Authorization: Bearer TOKEN`. Only its digest is kept; comparing takes equally long. */
export class BearerToken {
  readonly #digest: Buffer;

  /** RangeError, without a character of it, if it is too short to withstand guessing, or can't stand in a header. */
  constructor(text: string) {
    const { adminTokenCharactersMin: min, adminTokenCharactersMax: max } = limits;
    if (!/^[A-Za-z0-9._~+/=-]*$/.test(text)) throw new RangeError('a token is of letters, digits and . _ ~ + / = -');
    if (text.length < min || text.length > max) {
      throw new RangeError(`${text.length} characters, allowed: ${min} to ${max}`);
    }
    this.#digest = digestOf(text);
  }

  isIn(authorization: string | undefined): boolean {
    const match = /^bearer +(\S+) *$/i.exec(authorization ?? '');
    return match !== null && timingSafeEqual(digestOf(match[1] as string), this.#digest);
  }
}

/** How requests of one listener are let in. */
export interface AccessRules {
  /** `socket`: whoever can open it may do everything. */
  readonly by: 'socket' | 'token';
  /** Names, besides addresses and localhost, by which the drive may be called. */
  readonly names: readonly string[];
  /** Whether metrics are shown without a token. Health always is. */
  readonly openMetrics: boolean;
}

/** What is asked of a request before it is looked at. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  readonly host: string | undefined;
  readonly origin: string | undefined;
  readonly authorization: string | undefined;
}

/** Codes of the reasons for which a request is not let in. */
export const refusalCodes = ['tokenRequired', 'changesNotAllowed', 'unknownHost', 'forbiddenOrigin'] as const;

/** Why a request is not let in; undefined: it is. With no token reads are open, and nothing may be changed. */
export function refusalOf(
  request: RequestHead,
  rules: AccessRules,
  token: BearerToken | undefined,
): HttpError | undefined {
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  // A browser sends Origin with every request of a web page that could change something.
  if (request.origin !== undefined && !isRead) return new HttpError('forbiddenOrigin', shown(request.origin));
  if (rules.by === 'socket') return undefined;
  if (!isOurName(request.host, rules.names)) {
    const allowed = ['an IP address', 'localhost', ...rules.names, 'what --http-name adds'].join(', ');
    return new HttpError('unknownHost', shown(request.host ?? 'none'), allowed);
  }
  const isOpen = isRead && (token === undefined || isAlwaysOpen(request.path, rules));
  if (isOpen || token?.isIn(request.authorization) === true) return undefined;
  if (token === undefined) {
    return new HttpError(
      'changesNotAllowed',
      `${request.method} over TCP`,
      'by the Unix socket, or with --http-token-file',
    );
  }
  return new HttpError('tokenRequired', request.authorization === undefined ? 'none was sent' : 'another was sent');
}

const isAlwaysOpen = (path: string, { openMetrics }: AccessRules): boolean => {
  const plain = path.replace(/\/$/, '');
  return plain === adminRoutes.health.path || (openMetrics && plain === adminRoutes.metrics.path);
};

/** A web page can make its own name mean this machine, so only names that nobody else has are taken: addresses are. */
function isOurName(host: string | undefined, names: readonly string[]): boolean {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host ?? '');
  const name = (match?.[1] ?? match?.[2] ?? '').toLowerCase().replace(/\.$/, '');
  return isIP(name) !== 0 || name === 'localhost' || names.some((own) => own.toLowerCase() === name);
}

/** Of what a stranger sent, for an answer. */
const shown = (text: string): string => text.slice(0, 100);
