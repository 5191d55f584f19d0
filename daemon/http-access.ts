import { createSecureContext } from 'node:tls';
import { readSecretFile, readTrustedFile } from '../client/secret-file.ts';
import { BearerToken } from './admin/access.ts';
import type { HttpSecrets } from './admin/admin-server.ts';
import { DriveError } from './base/errors.ts';
import type { Logger } from './base/logger.ts';
import type { DaemonConfig } from './config.ts';
import { isLoopback } from './host-access.ts';

/** Reads the files that the HTTP listener needs. DriveError invalidField says which is no good, and why. */
export function readHttpSecrets({ httpTokenFile, httpCertFile, httpKeyFile }: DaemonConfig): HttpSecrets {
  try {
    return {
      token: httpTokenFile === undefined ? undefined : readToken(httpTokenFile),
      tls: httpCertFile === undefined || httpKeyFile === undefined ? undefined : readTls(httpCertFile, httpKeyFile),
    };
  } catch (error) {
    throw new DriveError('invalidField', (error as Error).message, { cause: error });
  }
}

function readToken(reference: string): BearerToken {
  const text = readSecretFile(reference, 'HTTP token').trim();
  try {
    return new BearerToken(text);
  } catch (error) {
    throw new Error(`HTTP token in ${reference}: ${(error as Error).message}`, { cause: error });
  }
}

function readTls(certFile: string, keyFile: string): NonNullable<HttpSecrets['tls']> {
  const cert = readTrustedFile(certFile, 'certificate');
  const key = readSecretFile(keyFile, 'private key');
  try {
    createSecureContext({ cert, key });
  } catch (error) {
    // What OpenSSL says names no content.
    throw new Error(`certificate ${certFile} with key ${keyFile}: ${(error as Error).message}`, { cause: error });
  }
  return { cert, key };
}

/** Says what a listener beyond this machine shows, and to whom. */
export function warnOfOpenHttp({ http, httpTokenFile, httpCertFile }: DaemonConfig, logger: Logger): void {
  if (http === undefined || isLoopback(http.host)) return;
  const { host } = http;
  if (httpTokenFile === undefined) logger.warn({ host }, 'HTTP beyond this machine without a token: anybody may read');
  else if (httpCertFile === undefined)
    logger.warn({ host }, 'HTTP beyond this machine without TLS: the token can be read');
}
