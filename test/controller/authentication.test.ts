import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import {
  authenticationFailure,
  authenticationMessageOf,
  authenticationMessages,
  chapChallenge,
  chapReply,
  chapSuccess2,
  dhGroups,
} from '../../spec/authentication.ts';
import { type ErrorCode, errorTable } from '../../spec/errors.ts';
import { standardQuotas } from '../../spec/host-quotas.ts';
import { adminOpcodes } from '../../spec/opcodes.ts';
import { dhPrime } from '../../spec/dh-groups.ts';
import type { HostAuthentication } from '../../daemon/hosts/contract.ts';
import { HostDirectory } from '../../daemon/hosts/host-directory.ts';
import type { HostsFile } from '../../daemon/hosts/hosts-file.ts';
import {
  authenticationEntry,
  failureOf,
  HOST_NQN,
  negotiateBytes,
  negotiateFor,
  receiveMessage,
  replyTo,
  secretOf,
  sendMessage,
  TRANSACTION_ID,
} from './chap-host.ts';
import type { RawHost } from './raw-host.ts';
import { createRig, type Rig } from './rig.ts';

const statusOf = (code: ErrorCode): number => (errorTable[code].sct << 8) | errorTable[code].sc;
const ATR = 1 << 17;
const hostSecret = secretOf(1);
const driveSecret = secretOf(2);

const authentication = (more: Partial<HostAuthentication> = {}): HostAuthentication => ({
  secret: hostSecret,
  controllerSecret: driveSecret,
  hashes: ['sha384', 'sha256'],
  dhGroups: ['null', 'ffdhe2048'],
  ...more,
});
const fileWith = (required: HostAuthentication | undefined, more: Partial<HostsFile> = {}): HostsFile => ({
  hosts: [{ nqn: HOST_NQN, authentication: required, quotas: standardQuotas, isConfined: true }],
  allowsOthers: false,
  coversUnix: true,
  ...more,
});

interface Guarded {
  readonly rig: Rig;
  readonly hosts: HostDirectory;
  /** A queue that is connected and has to authenticate. */
  connect(fields?: { qid?: number; cntlid?: number; hostnqn?: string }): Promise<RawHost>;
}

async function guard(t: TestContext, file = fileWith(authentication()), limits = {}): Promise<Guarded> {
  const hosts = new HostDirectory(file);
  const rig = await createRig(t, { modules: { hosts }, limits });
  return {
    rig,
    hosts,
    async connect({ qid = 0, cntlid, hostnqn } = {}) {
      const host = await rig.host();
      const data = {
        subnqn: rig.nqn,
        ...(cntlid !== undefined && { cntlid }),
        ...(hostnqn !== undefined && { hostnqn }),
      };
      const { status, dw0 } = await host.connect({ qid }, data);
      assert.equal(status, 0);
      assert.equal(dw0 & ~0xffff, ATR, 'the drive asks for authentication');
      return host;
    },
  };
}

const hashId = (name: 'sha256' | 'sha384') => ({ sha256: 1, sha384: 2 })[name];

async function challengeOf(host: RawHost, message = negotiateFor('sha256', 'null')): Promise<Uint8Array> {
  assert.equal((await sendMessage(host, message)).status, 0);
  const { status, data } = await receiveMessage(host);
  assert.equal(status, 0);
  return data;
}

/** All of it, and right. Returns what Success1 says. */
async function authenticate(
  host: RawHost,
  { rig }: Guarded,
  group: 'null' | 'ffdhe2048' = 'null',
): Promise<Uint8Array> {
  const challenge = await challengeOf(host, negotiateFor('sha256', group));
  await sendMessage(host, replyTo(challenge, hostSecret, rig.nqn));
  const { data } = await receiveMessage(host);
  assert.equal(authenticationMessageOf(data), 'success1');
  return data;
}

const keepAlive = (host: RawHost) => host.run({ opcode: adminOpcodes.keepAlive.opcode });

describe('the way in', () => {
  for (const group of ['null', 'ffdhe2048'] as const) {
    test(`with ${group}: nothing works before, everything after`, async (t) => {
      const guarded = await guard(t);
      const host = await guarded.connect();
      assert.equal((await keepAlive(host)).status, statusOf('authenticationRequired'));
      assert.equal((await host.propertyGet(0x1c)).status, statusOf('authenticationRequired'));
      await authenticate(host, guarded, group);
      assert.equal((await host.propertySet(0x14, 0x0046_0061)).status, 0);
      assert.equal((await keepAlive(host)).status, 0);
      assert.equal(guarded.rig.subsystem.snapshot().authentications.get('succeeded'), 1);
    });
  }

  test('every I/O queue for itself', async (t) => {
    const guarded = await guard(t);
    const admin = await guarded.connect();
    await authenticate(admin, guarded);
    await admin.propertySet(0x14, 0x0046_0061);
    const cntlid = guarded.rig.subsystem.snapshot().associations[0]!.controllerId;
    const io = await guarded.connect({ qid: 1, cntlid });
    const flush = { opcode: 0x00, nsid: 1 };
    assert.equal((await io.run(flush)).status, statusOf('authenticationRequired'));
    await authenticate(io, guarded);
    assert.equal((await io.run(flush)).status, 0);
  });

  test('of hashes and groups the drive takes the first of its own that the host has', async (t) => {
    const guarded = await guard(t);
    const both = await challengeOf(await guarded.connect(), negotiateBytes([1, 2, 9], [7, 1, 0]));
    const chosen = chapChallenge.decode(both);
    assert.deepEqual([chosen.hashId, chosen.groupId], [hashId('sha384'), dhGroups.null.id]);
    const group = await challengeOf(await guarded.connect(), negotiateBytes([1], [1, 5]));
    assert.deepEqual([chapChallenge.decode(group).hashId, chapChallenge.decode(group).dhValueBytes], [1, 256]);
    assert.notDeepEqual(both.slice(16, 48), group.slice(16, 48), 'challenges differ');
  });

  test('a host that is not listed, by either socket where the file covers both', async (t) => {
    const { rig } = await guard(t);
    for (const address of [rig.unix, rig.tcp]) {
      const host = await rig.host(address);
      const { status } = await host.connect({}, { subnqn: rig.nqn, hostnqn: HOST_NQN.replace('1', '9') });
      assert.equal(status, statusOf('connectInvalidHost'));
      assert.equal((await keepAlive(host)).status, statusOf('commandSequence'));
    }
    assert.equal(rig.subsystem.snapshot().refusedHostCount, 2);
    assert.equal(rig.subsystem.snapshot().associations.length, 0);
  });

  test('the Unix socket is a matter of permissions otherwise', async (t) => {
    const { rig } = await guard(t, fileWith(authentication(), { coversUnix: false }));
    const unix = await (await rig.host(rig.unix)).connect({}, { subnqn: rig.nqn });
    assert.deepEqual([unix.status, unix.dw0 & ATR], [0, 0]);
    const tcp = await (await rig.host(rig.tcp)).connect({}, { subnqn: rig.nqn });
    assert.deepEqual([tcp.status, tcp.dw0 & ATR], [0, ATR]);
  });
});

describe('proof of the controller', () => {
  test('is given to a host that has proved itself, and is over with Success2', async (t) => {
    const guarded = await guard(t);
    const host = await guarded.connect();
    const challenge = await challengeOf(host);
    await sendMessage(host, replyTo(challenge, hostSecret, guarded.rig.nqn, new Uint8Array(32).fill(9)));
    const { data } = await receiveMessage(host);
    assert.equal(data[8], 1, 'RVALID');
    assert.equal((await keepAlive(host)).status, statusOf('authenticationRequired'));
    const message = chapSuccess2.encode({ ...authenticationMessages.success2, transactionId: TRANSACTION_ID });
    assert.equal((await sendMessage(host, message)).status, 0);
    assert.equal((await host.propertyGet(0x1c)).status, 0);
  });

  test('is not to be had for the price of sending the challenge back', async (t) => {
    const guarded = await guard(t, fileWith(authentication({ controllerSecret: hostSecret })));
    const host = await guarded.connect();
    const challenge = await challengeOf(host);
    await sendMessage(host, replyTo(challenge, hostSecret, guarded.rig.nqn, challenge.slice(16, 48)));
    assert.equal(await failureOf(host), 'failed');
  });

  test('is not to be had from a drive without a secret of its own', async (t) => {
    const guarded = await guard(t, fileWith(authentication({ controllerSecret: undefined })));
    const host = await guarded.connect();
    const challenge = await challengeOf(host);
    await sendMessage(host, replyTo(challenge, hostSecret, guarded.rig.nqn, new Uint8Array(32)));
    assert.equal(await failureOf(host), 'failed');
  });

  test('a host that does not believe it ends the connection', async (t) => {
    const guarded = await guard(t);
    const host = await guarded.connect();
    const challenge = await challengeOf(host);
    await sendMessage(host, replyTo(challenge, hostSecret, guarded.rig.nqn, new Uint8Array(32)));
    await receiveMessage(host);
    const failure = { ...authenticationMessages.failure2, transactionId: TRANSACTION_ID, reason: 1, explanation: 1 };
    await sendMessage(host, authenticationFailure.encode(failure));
    await host.untilClosed();
    assert.equal(guarded.rig.subsystem.snapshot().authentications.get('refusedByHost'), 1);
  });
});

type Spoil = (message: Uint8Array) => Uint8Array;
const changed =
  (at: number, value: number): Spoil =>
  (message) =>
    message.map((byte, i) => (i === at ? value : byte));

describe('what is refused', () => {
  const negotiations: readonly (readonly [string, Uint8Array, string])[] = [
    ['no hash of ours', negotiateBytes([9], [0]), 'hashNotUsable'],
    ['no group of ours', negotiateBytes([1], [5]), 'groupNotUsable'],
    ['a secure channel', changed(6, 1)(negotiateFor('sha256', 'null')), 'secureChannelMismatch'],
    ['another protocol', changed(8, 2)(negotiateFor('sha256', 'null')), 'protocolNotUsable'],
    ['more hashes than there is room for', changed(10, 31)(negotiateFor('sha256', 'null')), 'incorrectPayload'],
    ['two protocols and one descriptor', changed(7, 2)(negotiateFor('sha256', 'null')), 'incorrectPayload'],
    ['a reserved byte', changed(2, 1)(negotiateFor('sha256', 'null')), 'incorrectPayload'],
    ['a message cut short', negotiateFor('sha256', 'null').slice(0, 40), 'incorrectPayload'],
    ['a message of one byte', new Uint8Array(1), 'incorrectMessage'],
    ['a reply before its challenge', new Uint8Array(80).fill(1, 0, 1).fill(2, 1, 2), 'incorrectMessage'],
  ];
  for (const [what, message, explanation] of negotiations) {
    test(what, async (t) => {
      const { rig, connect } = await guard(t);
      const host = await connect();
      assert.equal((await sendMessage(host, message)).status, 0);
      assert.equal(await failureOf(host), explanation);
      await host.untilClosed();
      assert.deepEqual(rig.fatals, []);
    });
  }

  test('a wrong secret, and then nothing works and the connection ends', async (t) => {
    const guarded = await guard(t);
    const host = await guarded.connect();
    const challenge = await challengeOf(host);
    await sendMessage(host, replyTo(challenge, secretOf(3), guarded.rig.nqn));
    assert.equal((await keepAlive(host)).status, statusOf('authenticationRequired'));
    // A second try on the same connection does not help.
    await sendMessage(host, negotiateFor('sha256', 'null'));
    assert.equal(await failureOf(host), 'failed');
    await host.untilClosed();
    assert.equal(guarded.rig.subsystem.snapshot().authentications.get('failed'), 1);
    assert.equal(guarded.rig.subsystem.snapshot().associations.length, 0);
  });

  test('a response that was right once, to another challenge', async (t) => {
    const guarded = await guard(t);
    const challenge = await challengeOf(await guarded.connect());
    const recorded = replyTo(challenge, hostSecret, guarded.rig.nqn);
    const host = await guarded.connect();
    await challengeOf(host);
    await sendMessage(host, recorded);
    assert.equal(await failureOf(host), 'failed');
  });

  for (const [what, value] of [
    ['0', new Uint8Array(256)],
    ['1', new Uint8Array(256).fill(1, 255)],
    ['the prime less 1', changed(255, dhPrime('ffdhe2048')[255]! - 1)(dhPrime('ffdhe2048'))],
    ['the prime', dhPrime('ffdhe2048')],
    ['more than the prime', new Uint8Array(256).fill(255)],
  ] as const) {
    test(`a Diffie-Hellman value of ${what}, with which the session key would be known`, async (t) => {
      const guarded = await guard(t);
      const host = await guarded.connect();
      const challenge = await challengeOf(host, negotiateFor('sha256', 'ffdhe2048'));
      const reply = replyTo(challenge, hostSecret, guarded.rig.nqn);
      reply.set(value, chapReply.sizeBytes + 64);
      await sendMessage(host, reply);
      assert.equal(await failureOf(host), 'incorrectPayload');
    });
  }

  test('a right reply of which any bit is changed', async (t) => {
    const guarded = await guard(t);
    const unused = (at: number): boolean => at >= chapReply.sizeBytes + 32;
    const sizeBytes = chapReply.sizeBytes + 64;
    const place = fc.record({ at: fc.nat(sizeBytes - 1), bit: fc.nat(7) }).filter(({ at }) => !unused(at));
    await fc.assert(
      fc.asyncProperty(place, async ({ at, bit }) => {
        const host = await guarded.connect();
        const reply = replyTo(await challengeOf(host), hostSecret, guarded.rig.nqn);
        reply[at]! ^= 1 << bit;
        await sendMessage(host, reply);
        const { data } = await receiveMessage(host);
        host.close();
        // Without CVALID the sequence number means nothing, and without a sequence number CVALID asks for nothing.
        const isAsking = at === chapReply.offsetOf.challengeValid && bit === 0;
        const isHarmless = isAsking || (at >= chapReply.offsetOf.sequence && at < chapReply.sizeBytes);
        assert.equal(authenticationMessageOf(data), isHarmless ? 'success1' : 'failure1', `byte ${at}, bit ${bit}`);
      }),
      { numRuns: 60 },
    );
    assert.deepEqual(guarded.rig.fatals, []);
  });

  const message = negotiateFor('sha256', 'null');
  const inCapsule = { kind: 'inCapsule', offset: 0, length: message.length } as const;
  const room = { kind: 'transport', length: 4096 } as const;
  for (const [what, type, sgl, more, code] of [
    ['another SPSP0', 'authenticationSend', inCapsule, { spsp0: 2 }, 'invalidField'],
    ['another protocol', 'authenticationSend', inCapsule, { secp: 0xea }, 'invalidField'],
    ['a length that is not that of the data', 'authenticationSend', inCapsule, { lengthBytes: 8 }, 'sglDataLength'],
    ['no data', 'authenticationSend', { kind: 'none' }, {}, 'invalidField'],
    ['a reserved byte', 'authenticationReceive', room, { reserved1: 1 }, 'invalidField'],
    [
      'more room than a message takes',
      'authenticationReceive',
      { kind: 'transport', length: 8196 },
      {},
      'invalidField',
    ],
    ['data in the wrong direction', 'authenticationReceive', inCapsule, {}, 'sglType'],
    ['a message that is not due', 'authenticationReceive', room, {}, 'commandSequence'],
  ] as const) {
    test(`${type}: ${what}`, async (t) => {
      const { connect, rig } = await guard(t);
      const host = await connect();
      const { reserved1, ...fields } = { reserved1: 0, ...more };
      const entry = authenticationEntry(type, sgl, host.commandId(), fields);
      entry[40] = reserved1;
      host.write(host.capsuleBytes(entry, sgl.kind === 'inCapsule' ? message : undefined));
      assert.equal((await host.completion()).status, statusOf(code));
      assert.deepEqual(rig.fatals, []);
    });
  }

  test('room too small for the challenge: the host may ask again', async (t) => {
    const guarded = await guard(t);
    const host = await guarded.connect();
    await sendMessage(host, negotiateFor('sha256', 'null'));
    assert.equal((await receiveMessage(host, 44)).status, statusOf('invalidField'));
    assert.equal(authenticationMessageOf((await receiveMessage(host)).data), 'challenge');
  });

  test('authentication where none is wanted', async (t) => {
    const { rig } = await guard(t, fileWith(undefined));
    const host = await rig.host();
    assert.equal((await host.connect({}, { subnqn: rig.nqn })).dw0 & ATR, 0);
    await sendMessage(host, negotiateFor('sha256', 'null'));
    assert.equal(await failureOf(host), 'protocolNotUsable');
  });

  test('a host that takes its time is let go, and holds no association meanwhile', async (t) => {
    const guarded = await guard(t, undefined, { associationCountMax: 1 });
    const host = await guarded.connect();
    const { rig } = guarded;
    const other = await guarded.connect();
    await authenticate(other, guarded);
    rig.clock.advance(rig.limits.authenticationTimeoutMs - 1);
    await sendMessage(host, negotiateFor('sha256', 'null'));
    rig.clock.advance(rig.limits.handshakeTimeoutMs);
    await host.untilClosed();
    assert.equal(rig.transport.snapshot().refusedCounts.timeout, 1);
    assert.equal((await other.propertyGet(0x1c)).status, 0);
  });
});

describe('rules that change', () => {
  test('a host that is taken out loses its association, one that stays keeps it', async (t) => {
    const guarded = await guard(t);
    const { rig, hosts } = guarded;
    const host = await guarded.connect();
    await authenticate(host, guarded);
    hosts.replace(fileWith(authentication({ secret: secretOf(3) })));
    rig.subsystem.hostsChanged();
    assert.equal((await host.propertyGet(0x1c)).status, 0, 'its secret is another now: that counts the next time');
    hosts.replace(fileWith(undefined, { hosts: [] }));
    rig.subsystem.hostsChanged();
    await host.untilClosed();
  });

  test('a host that had not to authenticate and now has to', async (t) => {
    const { rig, hosts } = await guard(t, fileWith(undefined));
    const { host } = await rig.admin();
    hosts.replace(fileWith(authentication()));
    rig.subsystem.hostsChanged();
    await host.untilClosed();
  });

  test('a host authenticates again with the secret of now, and one that fails loses its connection', async (t) => {
    const guarded = await guard(t);
    const { rig, hosts } = guarded;
    const host = await guarded.connect();
    await authenticate(host, guarded);
    await authenticate(host, guarded);
    hosts.replace(fileWith(authentication({ secret: secretOf(3) })));
    const challenge = await challengeOf(host);
    assert.equal((await host.propertyGet(0x1c)).status, 0, 'it goes on while it authenticates');
    await sendMessage(host, replyTo(challenge, hostSecret, rig.nqn));
    assert.equal(await failureOf(host), 'failed');
    await host.untilClosed();
  });
});
