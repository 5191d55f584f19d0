import { createHash, createHmac, type KeyObject } from 'node:crypto';
import type { ChapPrimitives } from '../../spec/dh-hmac-chap.ts';
import type { DhGroup } from '../../spec/authentication.ts';

export type KeyExchangeGroup = Exclude<DhGroup, 'null'>;

export const nodePrimitives: ChapPrimitives<KeyObject> = {
  hash: (name, data) => createHash(name).update(data).digest(),
  hmac: (name, key, data) => createHmac(name, key).update(data).digest(),
};

export interface DhKeyPair {
  readonly privateKey: Uint8Array;
  /** As long as the group's values. */
  readonly publicKey: Uint8Array;
}

/** Diffie-Hellman. Takes up to some ten milliseconds of computing, so it is done elsewhere. */
export interface KeyExchange {
  generate(group: KeyExchangeGroup): Promise<DhKeyPair>;
  /** The shared secret, as long as the group's values; undefined: the peer's value is none of the group. */
  agree(group: KeyExchangeGroup, privateKey: Uint8Array, peerValue: Uint8Array): Promise<Uint8Array | undefined>;
}
