/** A thread that computes in the groups of RFC 7919 until it is told to end. OpenSSL knows them and takes short exponents. */
import { createDiffieHellman } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import { dhGroups } from '../../spec/authentication.ts';
import { DH_GENERATOR, dhPrime, isDhValue } from '../../spec/dh-groups.ts';
import { assert } from '../base/assert.ts';
import type { DhKeyPair, KeyExchangeGroup } from './chap-crypto.ts';

/** One piece of work: a key pair, or a shared secret where keys are given. */
export interface KeyExchangeRequest {
  readonly group: KeyExchangeGroup;
  readonly agree: { readonly privateKey: Uint8Array; readonly peerValue: Uint8Array } | undefined;
}

export type KeyExchangeResult = DhKeyPair | { readonly sharedSecret: Uint8Array | undefined };

const port = parentPort;
assert(port !== null, 'key-exchange-worker.ts runs as a worker thread');
port.on('message', (request: KeyExchangeRequest) => port.postMessage(work(request)));

function work({ group, agree }: KeyExchangeRequest): KeyExchangeResult {
  const exchange = createDiffieHellman(Buffer.from(dhPrime(group)), DH_GENERATOR);
  const { sizeBytes } = dhGroups[group];
  if (agree === undefined) {
    const publicKey = padded(exchange.generateKeys(), sizeBytes);
    return { privateKey: new Uint8Array(exchange.getPrivateKey()), publicKey };
  }
  if (!isDhValue(group, agree.peerValue)) return { sharedSecret: undefined };
  exchange.setPrivateKey(agree.privateKey);
  return { sharedSecret: padded(exchange.computeSecret(agree.peerValue), sizeBytes) };
}

function padded(value: Uint8Array, sizeBytes: number): Uint8Array {
  const target = new Uint8Array(sizeBytes);
  target.set(value, sizeBytes - value.length);
  return target;
}
