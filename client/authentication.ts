import { createDiffieHellman, createHash, createHmac, type KeyObject, randomBytes, timingSafeEqual } from 'node:crypto';
import {
  AUTHENTICATION_FAILED,
  authenticationFailure,
  authenticationFailures,
  type AuthenticationMessage,
  authenticationMessageOf,
  authenticationMessages,
  authenticationNegotiate,
  chapChallenge,
  type ChapExchange,
  type ChapHash,
  chapHashes,
  chapHashNames,
  chapHashOf,
  type ChapPrimitives,
  chapProtocolDescriptor,
  chapReply,
  chapResponse,
  chapSuccess1,
  chapSuccess2,
  DH_GENERATOR,
  DH_HMAC_CHAP_PROTOCOL,
  type DhGroup,
  dhGroupNames,
  dhGroupOf,
  dhGroups,
  dhPrime,
  isDhValue,
} from '../spec/index.ts';
import { DriveAuthenticationError, DriveProtocolError } from './errors.ts';
import type { DhChapSecret, DhChapSecrets } from './secret-file.ts';

/** Who authenticates, as Connect named both. */
export interface ChapParties {
  readonly hostNqn: string;
  readonly subsystemNqn: string;
}

/** Authentication Send and Receive on one queue. */
export interface MessageExchange {
  send(message: Uint8Array): Promise<void>;
  /** The drive's message, zeros behind it. */
  receive(lengthBytes: number): Promise<Uint8Array>;
}

/** The longest message that a drive can have for us: a challenge with a value of ffdhe8192. */
const MESSAGE_BYTES_MAX = 4096;

const primitives: ChapPrimitives<KeyObject> = {
  hash: (name, data) => createHash(name).update(data).digest(),
  hmac: (name, key, data) => createHmac(name, key).update(data).digest(),
};

/** What the drive chose and asked. */
interface Challenge {
  readonly hash: ChapHash;
  readonly group: DhGroup;
  readonly sequence: number;
  readonly challenge: Uint8Array;
  readonly dhValue: Uint8Array;
}

/**
 * DH-HMAC-CHAP on one queue, the host's side (NVMe Base Specification 2.0, "DH-HMAC-CHAP Protocol"). The drive chooses hash
 * and group. DriveAuthenticationError if either side does not know the secret; DriveProtocolError.
 */
export async function authenticate(
  exchange: MessageExchange,
  { secret, controllerSecret }: DhChapSecrets,
  parties: ChapParties,
): Promise<void> {
  const transactionId = randomBytes(2).readUInt16LE();
  await exchange.send(negotiateMessage(transactionId));
  const { hash, group, ...asked } = parseChallenge(await receive(exchange, 'challenge', transactionId));
  const { publicValue, sessionKey } = agree(group, asked.dhValue);
  const agreed = { hash, sessionKey, transactionId, ...parties };
  const response = chapResponse('host', secret, { ...agreed, ...asked }, primitives);
  const own = controllerSecret && { challenge: randomBytes(chapHashes[hash].sizeBytes), sequence: nonZeroNumber() };
  await exchange.send(replyMessage(transactionId, response, own, publicValue));
  const success = await receive(exchange, 'success1', transactionId);
  if (controllerSecret === undefined || own === undefined) return;
  if (isProved(success, controllerSecret, { ...agreed, ...own })) {
    const { type, id } = authenticationMessages.success2;
    await exchange.send(chapSuccess2.encode({ type, id, transactionId }));
    return;
  }
  const { type, id } = authenticationMessages.failure2;
  const failure = {
    type,
    id,
    transactionId,
    reason: AUTHENTICATION_FAILED,
    explanation: authenticationFailures.failed,
  };
  await exchange.send(authenticationFailure.encode(failure));
  throw new DriveAuthenticationError('the drive does not prove that it knows the controller secret');
}

function negotiateMessage(transactionId: number): Uint8Array {
  const { sizeBytes } = authenticationNegotiate;
  const message = new Uint8Array(sizeBytes + chapProtocolDescriptor.sizeBytes);
  const { type, id } = authenticationMessages.negotiate;
  authenticationNegotiate.encode({ type, id, transactionId, protocolCount: 1 }, message);
  const hashIds = new Uint8Array(30);
  hashIds.set([...chapHashNames].reverse().map((name) => chapHashes[name].id));
  const groupIds = new Uint8Array(30);
  groupIds.set(dhGroupNames.map((name) => dhGroups[name].id));
  const counts = { hashCount: chapHashNames.length, groupCount: dhGroupNames.length };
  const descriptor = { protocol: DH_HMAC_CHAP_PROTOCOL, ...counts, hashIds, groupIds };
  chapProtocolDescriptor.encode(descriptor, message, sizeBytes);
  return message;
}

async function receive(
  exchange: MessageExchange,
  expected: AuthenticationMessage,
  transactionId: number,
): Promise<Uint8Array> {
  const message = await exchange.receive(MESSAGE_BYTES_MAX);
  const name = authenticationMessageOf(message);
  if (name === 'failure1') {
    const { explanation } = authenticationFailure.decode(message);
    throw new DriveAuthenticationError(`the drive refused the authentication: ${refusalText(explanation)}`);
  }
  // The transaction id stands at the same place in all messages.
  if (name !== expected || authenticationFailure.decode(message).transactionId !== transactionId) {
    throw new DriveProtocolError(`authentication message ${name ?? 'of no known kind'} instead of ${expected}`);
  }
  return message;
}

function refusalText(explanation: number): string {
  const texts: Partial<Record<number, string>> = {
    [authenticationFailures.failed]: 'the secret is wrong, or one is asked for that the drive has none of',
    [authenticationFailures.protocolNotUsable]: 'it has no secret for this host',
    [authenticationFailures.hashNotUsable]: 'no hash function that both allow',
    [authenticationFailures.groupNotUsable]: 'no Diffie-Hellman group that both allow',
  };
  return texts[explanation] ?? `explanation ${explanation}`;
}

function parseChallenge(message: Uint8Array): Challenge {
  const { sizeBytes } = chapChallenge;
  const { hashId, groupId, hashBytes, dhValueBytes, sequence } = chapChallenge.decode(message);
  const hash = chapHashOf(hashId);
  const group = dhGroupOf(groupId);
  const isGood =
    hash !== undefined &&
    group !== undefined &&
    hashBytes === chapHashes[hash].sizeBytes &&
    dhValueBytes === dhGroups[group].sizeBytes &&
    sequence !== 0;
  if (!isGood) {
    throw new DriveProtocolError(
      `challenge with hash ${hashId} of ${hashBytes} bytes, group ${groupId} of ${dhValueBytes}`,
    );
  }
  const challenge = message.slice(sizeBytes, sizeBytes + hashBytes);
  const dhValue = message.slice(sizeBytes + hashBytes, sizeBytes + hashBytes + dhValueBytes);
  return { hash, group, sequence, challenge, dhValue };
}

/** Our value of the group, and the secret shared with the drive; nothing of both with the NULL group. */
function agree(group: DhGroup, dhValue: Uint8Array): { publicValue: Uint8Array; sessionKey: Uint8Array | undefined } {
  if (group === 'null') return { publicValue: new Uint8Array(0), sessionKey: undefined };
  const { sizeBytes } = dhGroups[group];
  const keys = createDiffieHellman(Buffer.from(dhPrime(group)), DH_GENERATOR);
  const publicValue = padded(keys.generateKeys(), sizeBytes);
  if (!isDhValue(group, dhValue)) throw new DriveProtocolError(`the drive's Diffie-Hellman value is none of ${group}`);
  return { publicValue, sessionKey: padded(keys.computeSecret(dhValue), sizeBytes) };
}

function padded(value: Uint8Array, sizeBytes: number): Uint8Array {
  const target = new Uint8Array(sizeBytes);
  target.set(value, sizeBytes - value.length);
  return target;
}

const nonZeroNumber = (): number => randomBytes(4).readUInt32LE() || 1;

function replyMessage(
  transactionId: number,
  response: Uint8Array,
  own: { readonly challenge: Uint8Array; readonly sequence: number } | undefined,
  publicValue: Uint8Array,
): Uint8Array {
  const { sizeBytes } = chapReply;
  const hashBytes = response.length;
  const message = new Uint8Array(sizeBytes + 2 * hashBytes + publicValue.length);
  const { type, id } = authenticationMessages.reply;
  const challengeValid = own === undefined ? 0 : 1;
  const fields = { hashBytes, challengeValid, dhValueBytes: publicValue.length, sequence: own?.sequence ?? 0 };
  chapReply.encode({ type, id, transactionId, ...fields }, message);
  message.set(response, sizeBytes);
  if (own !== undefined) message.set(own.challenge, sizeBytes + hashBytes);
  message.set(publicValue, sizeBytes + 2 * hashBytes);
  return message;
}

function isProved(message: Uint8Array, secret: DhChapSecret, exchange: ChapExchange): boolean {
  const { hashBytes, responseValid } = chapSuccess1.decode(message);
  const expected = chapResponse('controller', secret, exchange, primitives);
  if (responseValid !== 1 || hashBytes !== expected.length) return false;
  return timingSafeEqual(message.subarray(chapSuccess1.sizeBytes, chapSuccess1.sizeBytes + hashBytes), expected);
}
