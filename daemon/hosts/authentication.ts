import { timingSafeEqual } from 'node:crypto';
import {
  ALGORITHM_IDS_MAX,
  AUTHENTICATION_FAILED,
  type AuthenticationFailure,
  authenticationFailure,
  authenticationFailures,
  type AuthenticationMessage,
  authenticationMessageOf,
  authenticationMessages,
  authenticationNegotiate,
  chapChallenge,
  type ChapHash,
  chapHashes,
  chapProtocolDescriptor,
  chapReply,
  chapSuccess1,
  chapSuccess2,
  DH_HMAC_CHAP_PROTOCOL,
  type DhGroup,
  dhGroups,
} from '../../spec/authentication.ts';
import { type ChapExchange, chapResponse } from '../../spec/dh-hmac-chap.ts';
import { DriveError } from '../base/errors.ts';
import type { Random } from '../base/random.ts';
import { type AuthenticationState, transition } from './authentication-state.ts';
import { type KeyExchange, nodePrimitives } from './chap-crypto.ts';
import type { HostAuthentication, HostSecret } from './contract.ts';

export interface AuthenticationOptions {
  readonly hostNqn: string;
  /** As Connect named it. */
  readonly subsystemNqn: string;
  /**
   * What the host has to prove, asked each time that it begins; undefined: nothing, and nothing can be proved to it.
   */
  readonly required: () => HostAuthentication | undefined;
}

export interface AuthenticationModules {
  readonly random: Random;
  readonly keyExchange: KeyExchange;
}

/** How an authentication can end. */
export const authenticationEnds = [
  'succeeded',
  ...(Object.keys(authenticationFailures) as AuthenticationFailure[]),
  'refusedByHost',
] as const;
export type AuthenticationEnd = (typeof authenticationEnds)[number];

/** What the host and the drive agreed on, and what they told each other so far. */
interface Transaction {
  readonly required: HostAuthentication;
  readonly transactionId: number;
  readonly hash: ChapHash;
  readonly group: DhGroup;
  sequence: number;
  challenge: Uint8Array;
  privateKey: Uint8Array | undefined;
  sessionKey: Uint8Array | undefined;
  /** Challenge of the host to the controller. */
  hostChallenge: { readonly sequence: number; readonly challenge: Uint8Array } | undefined;
}

/**
 * The controller's side of DH-HMAC-CHAP on one queue (NVMe Base Specification 2.0, "DH-HMAC-CHAP Protocol"). Messages that
 * are wrong end it with AUTH_Failure1, as the standard has it, not with a status of the command that brought them.
 */
export class QueueAuthentication {
  readonly #options: AuthenticationOptions;
  readonly #modules: AuthenticationModules;
  #state: AuthenticationState = 'idle';
  #hasSucceeded = false;
  readonly #wasRequired: boolean;
  #transaction: Transaction | undefined;
  #transactionId = 0;
  #failure: AuthenticationFailure = 'failed';
  /** A message is being made or checked, which takes a while. */
  #isBusy = false;
  #isOver = false;
  /** Told how each authentication ended. */
  onEnd: (end: AuthenticationEnd) => void = () => undefined;

  constructor(options: AuthenticationOptions, modules: AuthenticationModules) {
    this.#options = options;
    this.#modules = modules;
    this.#wasRequired = options.required() !== undefined;
  }

  get state(): AuthenticationState {
    return this.#state;
  }

  /** Whether the host has authenticated on this queue, or had not to. It stays so while it does so again. */
  get isDone(): boolean {
    return this.#hasSucceeded || !this.#wasRequired;
  }

  /** Whether what the host has shown is enough by the rules of now. */
  get isEnough(): boolean {
    return this.#hasSucceeded || this.#options.required() === undefined;
  }

  /** AUTH_Failure1 was fetched, or AUTH_Failure2 came: the connection has to end. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** A message of the host. Resolves when it has been dealt with; the answer is there to be fetched then. */
  async take(message: Uint8Array): Promise<void> {
    if (this.#state === 'failed') return;
    if (this.#isBusy) {
      this.#fail('incorrectMessage');
      return;
    }
    this.#isBusy = true;
    try {
      await this.#takeNext(message);
    } finally {
      this.#isBusy = false;
    }
  }

  /** The next message for the host. DriveError commandSequence: none is due; invalidField: longer than `lengthMax`. */
  async give(lengthMax: number): Promise<Uint8Array> {
    if (this.#isBusy) throw new DriveError('commandSequence', 'the message before it is still worked on');
    switch (this.#state) {
      case 'negotiated':
        return this.#giveChallenge(lengthMax);
      case 'verified':
        return this.#giveSuccess(lengthMax);
      case 'failed':
        return this.#giveFailure(lengthMax);
      default:
        throw new DriveError('commandSequence', `no message for the host while ${this.#state}`);
    }
  }

  async #takeNext(message: Uint8Array): Promise<void> {
    const name = authenticationMessageOf(message);
    const expected: Partial<Record<AuthenticationState, AuthenticationMessage>> = {
      idle: 'negotiate',
      challenged: 'reply',
      provingController: 'success2',
    };
    if (name === 'failure2') this.#refusedByHost();
    else if (name === undefined || name !== expected[this.#state]) this.#fail('incorrectMessage');
    else if (name === 'negotiate') this.#negotiate(message);
    else if (name === 'reply') await this.#checkReply(message);
    else this.#takeSuccess2(message);
  }

  // --- AUTH_Negotiate, DH-HMAC-CHAP_Challenge ---

  #negotiate(message: Uint8Array): void {
    if (message.length < authenticationNegotiate.sizeBytes) {
      this.#fail('incorrectPayload');
      return;
    }
    const { transactionId, secureChannel, protocolCount } = authenticationNegotiate.decode(message);
    this.#transactionId = transactionId;
    const required = this.#options.required();
    const wantedBytes = authenticationNegotiate.sizeBytes + protocolCount * chapProtocolDescriptor.sizeBytes;
    if (authenticationNegotiate.firstNonZeroReserved(message) !== undefined || message.length !== wantedBytes) {
      this.#fail('incorrectPayload');
    } else if (secureChannel !== 0) this.#fail('secureChannelMismatch');
    else if (required === undefined) this.#fail('protocolNotUsable');
    else {
      const chosen = chooseAlgorithms(message, protocolCount, required);
      if (typeof chosen === 'string') this.#fail(chosen);
      else this.#begin(transactionId, required, chosen);
    }
  }

  #begin(transactionId: number, required: HostAuthentication, { hash, group }: Algorithms): void {
    this.#transaction = {
      required,
      transactionId,
      hash,
      group,
      sequence: 0,
      challenge: new Uint8Array(0),
      privateKey: undefined,
      sessionKey: undefined,
      hostChallenge: undefined,
    };
    this.#state = transition(this.#state, 'negotiated');
  }

  async #giveChallenge(lengthMax: number): Promise<Uint8Array> {
    const transaction = this.#transaction as Transaction;
    const { hash, group, transactionId } = transaction;
    const hashBytes = chapHashes[hash].sizeBytes;
    const dhValueBytes = dhGroups[group].sizeBytes;
    const message = messageOf(chapChallenge.sizeBytes + hashBytes + dhValueBytes, lengthMax);
    this.#isBusy = true;
    try {
      if (group !== 'null') {
        const { privateKey, publicKey } = await this.#modules.keyExchange.generate(group);
        transaction.privateKey = privateKey;
        message.set(publicKey, chapChallenge.sizeBytes + hashBytes);
      }
    } finally {
      this.#isBusy = false;
    }
    const { random } = this.#modules;
    transaction.sequence = random.nextUint32() || 1;
    transaction.challenge = random.bytes(hashBytes);
    const { type, id } = authenticationMessages.challenge;
    const { id: hashId } = chapHashes[hash];
    const { id: groupId } = dhGroups[group];
    const { sequence } = transaction;
    chapChallenge.encode({ type, id, transactionId, hashBytes, hashId, groupId, dhValueBytes, sequence }, message);
    message.set(transaction.challenge, chapChallenge.sizeBytes);
    // A message that came meanwhile has ended it.
    if (this.#state === 'negotiated') this.#state = transition(this.#state, 'challenged');
    return message;
  }

  // --- DH-HMAC-CHAP_Reply, DH-HMAC-CHAP_Success1 ---

  async #checkReply(message: Uint8Array): Promise<void> {
    const transaction = this.#transaction as Transaction;
    const parts = partsOfReply(message, transaction);
    if (parts === undefined) {
      this.#fail('incorrectPayload');
      return;
    }
    this.#state = transition(this.#state, 'verifying');
    const { response, hostChallenge, dhValue } = parts;
    const { group, privateKey } = transaction;
    if (group !== 'null') {
      const sessionKey = await this.#modules.keyExchange.agree(group, privateKey as Uint8Array, dhValue);
      privateKey?.fill(0);
      transaction.privateKey = undefined;
      if (this.#state !== 'verifying') return;
      if (sessionKey === undefined) {
        this.#fail('incorrectPayload');
        return;
      }
      transaction.sessionKey = sessionKey;
    }
    const { secret, controllerSecret } = transaction.required;
    const isRight = timingSafeEqual(this.#response('host', secret, transaction), response);
    // A challenge sent back as the host's own would let it learn what it should know.
    const isReflected =
      hostChallenge !== undefined && Buffer.compare(hostChallenge.challenge, transaction.challenge) === 0;
    if (!isRight || isReflected || (hostChallenge !== undefined && controllerSecret === undefined)) {
      this.#fail('failed');
      return;
    }
    transaction.hostChallenge = hostChallenge;
    this.#state = transition(this.#state, 'verified');
  }

  #giveSuccess(lengthMax: number): Uint8Array {
    const transaction = this.#transaction as Transaction;
    const { transactionId, hash, hostChallenge, required } = transaction;
    const hashBytes = chapHashes[hash].sizeBytes;
    const responseValid = hostChallenge === undefined ? 0 : 1;
    const message = messageOf(chapSuccess1.sizeBytes + responseValid * hashBytes, lengthMax);
    const { type, id } = authenticationMessages.success1;
    chapSuccess1.encode({ type, id, transactionId, hashBytes, responseValid }, message);
    if (hostChallenge === undefined) {
      this.#succeed();
      return message;
    }
    const controllerSecret = required.controllerSecret as HostSecret;
    const response = this.#response('controller', controllerSecret, { ...transaction, ...hostChallenge });
    message.set(response, chapSuccess1.sizeBytes);
    this.#state = transition(this.#state, 'provingController');
    return message;
  }

  #takeSuccess2(message: Uint8Array): void {
    const isWhole =
      message.length === chapSuccess2.sizeBytes && chapSuccess2.firstNonZeroReserved(message) === undefined;
    if (!isWhole || chapSuccess2.decode(message).transactionId !== this.#transactionId) this.#fail('incorrectPayload');
    else this.#succeed();
  }

  #response(prover: 'host' | 'controller', secret: HostSecret, transaction: Transaction): Uint8Array {
    const { hostNqn, subsystemNqn } = this.#options;
    const exchange: ChapExchange = { ...transaction, hostNqn, subsystemNqn };
    return chapResponse(prover, secret, exchange, nodePrimitives);
  }

  // --- the end ---

  #succeed(): void {
    this.#forget();
    this.#state = transition(this.#state, 'idle');
    this.#hasSucceeded = true;
    this.onEnd('succeeded');
  }

  #fail(failure: AuthenticationFailure): void {
    this.#forget();
    this.#failure = failure;
    this.#state = transition(this.#state, 'failed');
    this.onEnd(failure);
  }

  #refusedByHost(): void {
    this.#forget();
    this.#state = transition(this.#state, 'failed');
    this.#isOver = true;
    this.onEnd('refusedByHost');
  }

  #giveFailure(lengthMax: number): Uint8Array {
    const message = messageOf(authenticationFailure.sizeBytes, lengthMax);
    const { type, id } = authenticationMessages.failure1;
    const explanation = authenticationFailures[this.#failure];
    const transactionId = this.#transactionId;
    authenticationFailure.encode({ type, id, transactionId, reason: AUTHENTICATION_FAILED, explanation }, message);
    this.#isOver = true;
    return message;
  }

  #forget(): void {
    this.#transaction?.sessionKey?.fill(0);
    this.#transaction?.privateKey?.fill(0);
    this.#transaction = undefined;
  }
}

interface Algorithms {
  readonly hash: ChapHash;
  readonly group: DhGroup;
}

/** The first of our algorithms that the host can use too. */
function chooseAlgorithms(
  message: Uint8Array,
  protocolCount: number,
  { hashes, dhGroups: groups }: HostAuthentication,
): Algorithms | AuthenticationFailure {
  for (let i = 0; i < protocolCount; i++) {
    const at = authenticationNegotiate.sizeBytes + i * chapProtocolDescriptor.sizeBytes;
    const { protocol, hashCount, groupCount, hashIds, groupIds } = chapProtocolDescriptor.decode(message, at);
    if (protocol !== DH_HMAC_CHAP_PROTOCOL) continue;
    if (hashCount > ALGORITHM_IDS_MAX || groupCount > ALGORITHM_IDS_MAX) return 'incorrectPayload';
    const hash = hashes.find((name) => hashIds.subarray(0, hashCount).includes(chapHashes[name].id));
    if (hash === undefined) return 'hashNotUsable';
    const group = groups.find((name) => groupIds.subarray(0, groupCount).includes(dhGroups[name].id));
    return group === undefined ? 'groupNotUsable' : { hash, group };
  }
  return 'protocolNotUsable';
}

interface ReplyParts {
  readonly response: Uint8Array;
  readonly hostChallenge: Transaction['hostChallenge'];
  /** Empty with the NULL group. */
  readonly dhValue: Uint8Array;
}

/** Undefined: the message is not what the transaction asks for. */
function partsOfReply(message: Uint8Array, { transactionId, hash, group }: Transaction): ReplyParts | undefined {
  const { sizeBytes } = chapReply;
  if (message.length < sizeBytes || chapReply.firstNonZeroReserved(message) !== undefined) return undefined;
  const reply = chapReply.decode(message);
  const hashBytes = chapHashes[hash].sizeBytes;
  const { dhValueBytes, challengeValid, sequence } = reply;
  const isOfTransaction = reply.transactionId === transactionId && reply.hashBytes === hashBytes && challengeValid <= 1;
  const fitsGroup =
    group === 'null' ? dhValueBytes === 0 : dhValueBytes > 0 && dhValueBytes <= dhGroups[group].sizeBytes;
  if (!isOfTransaction || !fitsGroup || message.length !== sizeBytes + 2 * hashBytes + dhValueBytes) return undefined;
  const part = (at: number, lengthBytes: number): Uint8Array => message.slice(at, at + lengthBytes);
  // A challenge with sequence number 0 is for the keys of a secure channel, which there is none of.
  const isAsked = challengeValid === 1 && sequence !== 0;
  return {
    response: part(sizeBytes, hashBytes),
    hostChallenge: isAsked ? { sequence, challenge: part(sizeBytes + hashBytes, hashBytes) } : undefined,
    dhValue: part(sizeBytes + 2 * hashBytes, dhValueBytes),
  };
}

/** DriveError invalidField: the host has less room than the message takes. */
function messageOf(sizeBytes: number, lengthMax: number): Uint8Array {
  if (sizeBytes > lengthMax) throw new DriveError('invalidField', `room for ${lengthMax} bytes, ${sizeBytes} are due`);
  return new Uint8Array(sizeBytes);
}
