/** A host that authenticates by hand-made messages: it can say wrong things too. */
import assert from 'node:assert/strict';
import { createDiffieHellman, createSecretKey, type KeyObject } from 'node:crypto';
import {
  authenticationCommand,
  authenticationFailure,
  authenticationFailures,
  authenticationMessageOf,
  authenticationMessages,
  authenticationNegotiate,
  authenticationProtocol,
  chapChallenge,
  type ChapHash,
  chapHashes,
  chapProtocolDescriptor,
  chapReply,
  type DhGroup,
  dhGroupOf,
  dhGroups,
} from '../../spec/authentication.ts';
import { DH_GENERATOR, dhPrime } from '../../spec/dh-groups.ts';
import { type ChapSecret, chapResponse } from '../../spec/dh-hmac-chap.ts';
import { FABRICS_OPCODE, fabricsTypes } from '../../spec/opcodes.ts';
import { encodeSgl, SGL_FLAGS, type Sgl } from '../../spec/sgl.ts';
import { nodePrimitives } from '../../daemon/hosts/chap-crypto.ts';
import type { Completion, RawHost } from './raw-host.ts';

export const HOST_NQN = 'nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555';
export const TRANSACTION_ID = 0x1234;
const RECEIVE_BYTES = 4096;

export const secretOf = (fill: number): ChapSecret<KeyObject> => ({
  transform: 'sha256',
  key: createSecretKey(Buffer.alloc(32, fill)),
});

/** Either of the two commands; `more`: fields that differ from a good one. */
export function authenticationEntry(
  type: 'authenticationSend' | 'authenticationReceive',
  sgl: Sgl & { readonly length?: number },
  commandId: number,
  more: Partial<Parameters<typeof authenticationCommand.encode>[0]> = {},
): Uint8Array {
  return authenticationCommand.encode({
    opcode: FABRICS_OPCODE,
    flags: SGL_FLAGS,
    commandId,
    fctype: fabricsTypes[type].opcode,
    sgl: encodeSgl(sgl),
    ...authenticationProtocol,
    lengthBytes: sgl.length ?? 0,
    ...more,
  });
}

export async function sendMessage(host: RawHost, message: Uint8Array): Promise<Completion> {
  const sgl = { kind: 'inCapsule', offset: 0, length: message.length } as const;
  host.write(host.capsuleBytes(authenticationEntry('authenticationSend', sgl, host.commandId()), message));
  return host.completion();
}

export async function receiveMessage(host: RawHost, length = RECEIVE_BYTES): Promise<Completion> {
  host.write(
    host.capsuleBytes(authenticationEntry('authenticationReceive', { kind: 'transport', length }, host.commandId())),
  );
  return host.completion();
}

export function negotiateBytes(hashIds: readonly number[], groupIds: readonly number[]): Uint8Array {
  const { sizeBytes } = authenticationNegotiate;
  const message = new Uint8Array(sizeBytes + chapProtocolDescriptor.sizeBytes);
  authenticationNegotiate.encode(
    { ...authenticationMessages.negotiate, transactionId: TRANSACTION_ID, protocolCount: 1 },
    message,
  );
  const counts = { protocol: 1, hashCount: hashIds.length, groupCount: groupIds.length };
  const lists = { hashIds: padded(hashIds), groupIds: padded(groupIds) };
  chapProtocolDescriptor.encode({ ...counts, ...lists }, message, sizeBytes);
  return message;
}

const padded = (ids: readonly number[]): Uint8Array => Uint8Array.from({ length: 30 }, (_, i) => ids[i] ?? 0);

export const negotiateFor = (hash: ChapHash, group: DhGroup): Uint8Array =>
  negotiateBytes([chapHashes[hash].id], [dhGroups[group].id]);

/** A right reply to a challenge; with `hostChallenge` it asks the controller to prove itself. */
export function replyTo(
  message: Uint8Array,
  secret: ChapSecret<KeyObject>,
  subsystemNqn: string,
  hostChallenge?: Uint8Array,
): Uint8Array {
  assert.equal(authenticationMessageOf(message), 'challenge');
  const { hashBytes, hashId, groupId, dhValueBytes, sequence, transactionId } = chapChallenge.decode(message);
  const hash = Object.entries(chapHashes).find(([, { id }]) => id === hashId)?.[0] as ChapHash;
  const group = dhGroupOf(groupId) as DhGroup;
  const at = chapChallenge.sizeBytes + hashBytes;
  const challenge = message.slice(chapChallenge.sizeBytes, at);
  let value: Uint8Array = new Uint8Array(0);
  let sessionKey: Uint8Array | undefined;
  if (group !== 'null') {
    const keys = createDiffieHellman(Buffer.from(dhPrime(group)), DH_GENERATOR);
    // Of one number in 256 the first byte is zero, and left out.
    const padded = (number: Uint8Array): Uint8Array =>
      Buffer.concat([Buffer.alloc(dhValueBytes - number.length), number]);
    value = padded(keys.generateKeys());
    sessionKey = padded(keys.computeSecret(message.slice(at, at + dhValueBytes)));
  }
  const parties = { hostNqn: HOST_NQN, subsystemNqn };
  const exchange = { hash, challenge, sessionKey, sequence, transactionId, ...parties };
  const response = chapResponse('host', secret, exchange, nodePrimitives);
  const reply = new Uint8Array(chapReply.sizeBytes + 2 * hashBytes + value.length);
  const challengeValid = hostChallenge === undefined ? 0 : 1;
  const fields = { hashBytes, challengeValid, dhValueBytes: value.length, sequence: challengeValid };
  chapReply.encode({ ...authenticationMessages.reply, transactionId, ...fields }, reply);
  reply.set(response, chapReply.sizeBytes);
  if (hostChallenge !== undefined) reply.set(hostChallenge, chapReply.sizeBytes + hashBytes);
  reply.set(value, chapReply.sizeBytes + 2 * hashBytes);
  return reply;
}

/** What AUTH_Failure1 says, which the host fetches now. */
export async function failureOf(host: RawHost): Promise<string> {
  const { data } = await receiveMessage(host);
  if (authenticationMessageOf(data) !== 'failure1') return `message ${authenticationMessageOf(data)}`;
  const { explanation } = authenticationFailure.decode(data);
  return Object.entries(authenticationFailures).find(([, value]) => value === explanation)?.[0] ?? String(explanation);
}
