/**
 * In-band authentication (NVMe Base Specification 2.0, "NVMe In-band Authentication"): the two Fabrics commands and the
 * messages of DH-HMAC-CHAP that they carry. What is computed of the messages stands in `dh-hmac-chap.ts`.
 */
import { bytes, defineStruct, reserved, u8, u16, u32 } from './struct.ts';

/** Authentication Send and Authentication Receive. */
export const authenticationCommand = defineStruct('authentication command', 64, {
  opcode: u8(0, 'FABRICS_OPCODE'),
  flags: u8(1, 'PSDT in bits 7:6: 01b'),
  commandId: u16(2, 'CID'),
  fctype: u8(4, 'fabricsTypes'),
  reserved0: reserved(5, 19),
  sgl: bytes(24, 16, 'SGL1: the message, or the room for one'),
  reserved1: reserved(40, 1),
  spsp0: u8(41, 'authenticationProtocol.spsp0'),
  spsp1: u8(42, 'authenticationProtocol.spsp1'),
  secp: u8(43, 'authenticationProtocol.secp'),
  lengthBytes: u32(44, 'bytes of the message (TL), or of the room for one (AL); that of SGL1'),
  reserved2: reserved(48, 16),
});

/** The only values of the three bytes. */
export const authenticationProtocol = { spsp0: 1, spsp1: 1, secp: 0xe9 } as const;

/** First byte of a message. */
export const authenticationTypes = { common: 0, dhHmacChap: 1 } as const;
/** Second byte. Negotiate and the failures are common messages, the others those of DH-HMAC-CHAP. */
export const authenticationMessages = {
  negotiate: { type: authenticationTypes.common, id: 0x00, from: 'host' },
  challenge: { type: authenticationTypes.dhHmacChap, id: 0x01, from: 'controller' },
  reply: { type: authenticationTypes.dhHmacChap, id: 0x02, from: 'host' },
  success1: { type: authenticationTypes.dhHmacChap, id: 0x03, from: 'controller' },
  success2: { type: authenticationTypes.dhHmacChap, id: 0x04, from: 'host' },
  failure2: { type: authenticationTypes.common, id: 0xf0, from: 'host' },
  failure1: { type: authenticationTypes.common, id: 0xf1, from: 'controller' },
} as const;
export type AuthenticationMessage = keyof typeof authenticationMessages;

/** The message that begins with these bytes. */
export const authenticationMessageOf = (message: Uint8Array): AuthenticationMessage | undefined =>
  (Object.keys(authenticationMessages) as AuthenticationMessage[]).find(
    (name) => authenticationMessages[name].type === message[0] && authenticationMessages[name].id === message[1],
  );

const messageFields = {
  type: u8(0, 'authenticationTypes'),
  id: u8(1, 'authenticationMessages'),
  reserved0: reserved(2, 2),
  transactionId: u16(4, 'chosen by the host, the same in all messages of one authentication'),
} as const;

/** AUTH_Negotiate: what the host can do. `protocolCount` protocol descriptors follow. */
export const authenticationNegotiate = defineStruct('AUTH_Negotiate', 8, {
  ...messageFields,
  secureChannel: u8(6, 'SC_C: TLS that is to follow; 0: none'),
  protocolCount: u8(7, 'NAPD'),
});

export const DH_HMAC_CHAP_PROTOCOL = 1;
export const ALGORITHM_IDS_MAX = 30;

/** Hash functions and groups that the host can use, in the order of its preference. 64 bytes. */
export const chapProtocolDescriptor = defineStruct('DH-HMAC-CHAP protocol descriptor', 64, {
  protocol: u8(0, 'DH_HMAC_CHAP_PROTOCOL'),
  reserved0: reserved(1, 1),
  hashCount: u8(2, 'HALEN: hash functions, 1 to 30'),
  groupCount: u8(3, 'DHLEN: groups, 1 to 30'),
  hashIds: bytes(4, 30, 'ids of chapHashes'),
  groupIds: bytes(34, 30, 'ids of dhGroups'),
});

/** DH-HMAC-CHAP_Challenge. The challenge (`hashBytes`) and the controller's DH value (`dhValueBytes`) follow. */
export const chapChallenge = defineStruct('DH-HMAC-CHAP_Challenge', 16, {
  ...messageFields,
  hashBytes: u8(6, 'HL: bytes of the hash'),
  reserved1: reserved(7, 1),
  hashId: u8(8, 'id of chapHashes'),
  groupId: u8(9, 'id of dhGroups'),
  dhValueBytes: u16(10, 'DHVLEN; 0 with the NULL group'),
  sequence: u32(12, 'SEQNUM of the controller: never 0'),
});

/** DH-HMAC-CHAP_Reply. Response and challenge of the host (`hashBytes` each), and its DH value follow. */
export const chapReply = defineStruct('DH-HMAC-CHAP_Reply', 16, {
  ...messageFields,
  hashBytes: u8(6, 'HL: bytes of the hash'),
  reserved1: reserved(7, 1),
  challengeValid: u8(8, 'CVALID: 1 if the controller is to prove itself too; else the challenge is zeros'),
  reserved2: reserved(9, 1),
  dhValueBytes: u16(10, 'DHVLEN; 0 with the NULL group'),
  sequence: u32(12, 'SEQNUM of the host; 0 without a challenge'),
});

/** DH-HMAC-CHAP_Success1. The controller's response (`hashBytes`) follows if it was asked for. */
export const chapSuccess1 = defineStruct('DH-HMAC-CHAP_Success1', 16, {
  ...messageFields,
  hashBytes: u8(6, 'HL: bytes of the hash'),
  reserved1: reserved(7, 1),
  responseValid: u8(8, 'RVALID: 1 if a response follows'),
  reserved2: reserved(9, 7),
});

/** DH-HMAC-CHAP_Success2: the controller has proved itself. */
export const chapSuccess2 = defineStruct('DH-HMAC-CHAP_Success2', 16, {
  ...messageFields,
  reserved1: reserved(6, 10),
});

/** AUTH_Failure1 (of the controller) and AUTH_Failure2 (of the host). */
export const authenticationFailure = defineStruct('AUTH_Failure', 8, {
  ...messageFields,
  reason: u8(6, 'AUTHENTICATION_FAILED'),
  explanation: u8(7, 'authenticationFailures'),
});

export const AUTHENTICATION_FAILED = 1;
export const authenticationFailures = {
  failed: 1,
  protocolNotUsable: 2,
  secureChannelMismatch: 3,
  hashNotUsable: 4,
  groupNotUsable: 5,
  incorrectPayload: 6,
  incorrectMessage: 7,
} as const;
export type AuthenticationFailure = keyof typeof authenticationFailures;

/** `id` in messages and secrets. */
export const chapHashes = {
  sha256: { id: 1, name: 'SHA-256', sizeBytes: 32 },
  sha384: { id: 2, name: 'SHA-384', sizeBytes: 48 },
  sha512: { id: 3, name: 'SHA-512', sizeBytes: 64 },
} as const;
export type ChapHash = keyof typeof chapHashes;
export const chapHashNames = Object.keys(chapHashes) as ChapHash[];

/** Groups of RFC 7919, whose primes are in `dh-groups.ts`. `null`: none, HMAC alone. */
export const dhGroups = {
  null: { id: 0, sizeBytes: 0 },
  ffdhe2048: { id: 1, sizeBytes: 256 },
  ffdhe3072: { id: 2, sizeBytes: 384 },
  ffdhe4096: { id: 3, sizeBytes: 512 },
  ffdhe6144: { id: 4, sizeBytes: 768 },
  ffdhe8192: { id: 5, sizeBytes: 1024 },
} as const;
export type DhGroup = keyof typeof dhGroups;
export const dhGroupNames = Object.keys(dhGroups) as DhGroup[];

export const chapHashOf = (id: number): ChapHash | undefined =>
  chapHashNames.find((name) => chapHashes[name].id === id);
export const dhGroupOf = (id: number): DhGroup | undefined => dhGroupNames.find((name) => dhGroups[name].id === id);
