/** Fabrics commands, nearly right, in the order in which hosts send them, mostly. */
import { authenticationMessageOf, authenticationMessages, chapSuccess2 } from '../../../spec/authentication.ts';
import {
  CNTLID_DYNAMIC,
  connectCommand,
  connectData,
  DISCOVERY_NQN,
  disconnectCommand,
  properties,
  subsystemNqn,
} from '../../../spec/fabrics.ts';
import { FABRICS_OPCODE, fabricsTypes } from '../../../spec/opcodes.ts';
import { encodeSgl, SGL_FLAGS, type Sgl } from '../../../spec/sgl.ts';
import type { Fields, Struct } from '../../../spec/struct.ts';
import { authenticationEntry, negotiateBytes, replyTo, secretOf, TRANSACTION_ID } from '../../controller/chap-host.ts';
import { CC_ENABLED, SERIAL } from '../../controller/rig.ts';
import { connectEntry, propertyGetEntry, propertySetEntry } from '../../controller/submissions.ts';
import type { Prng } from '../../sim/prng.ts';
import { SECRET_FILL } from '../commands/fuzz-drive.ts';
import { HOSTS, nqnOf } from '../commands/names.ts';
import { drawNumber, EDGES, mutateBytes, mutateLength, mutateStruct } from '../mutate.ts';
import type { ControllerModel, LinkModel } from './fabrics-rules.ts';

export interface DrawnFabrics {
  readonly entry: Uint8Array;
  readonly capsule: Uint8Array;
}

const NONE = new Uint8Array(0);
const hostIdOf = (host: number): Uint8Array => new Uint8Array(16).fill(host);

function drawConnect(
  random: Prng,
  link: LinkModel,
  controllers: readonly ControllerModel[],
  cid: number,
): DrawnFabrics {
  const reachable = controllers.filter(({ isTcp }) => isTcp === link.isTcp);
  const controller = reachable.length > 0 && random.chance(0.5) ? random.pick(reachable) : undefined;
  const host = random.pick(Object.values(HOSTS));
  const hostnqn = controller?.hostNqn ?? nqnOf(host);
  const hostid = controller ? Uint8Array.from(Buffer.from(controller.hostId, 'hex')) : hostIdOf(host);
  const isDiscovery = controller?.isDiscovery ?? random.chance(0.15);
  const capsule = connectData.encode({
    hostid,
    hostnqn,
    cntlid: controller?.cntlid ?? CNTLID_DYNAMIC,
    subnqn: isDiscovery ? DISCOVERY_NQN : subsystemNqn(SERIAL),
  });
  const qid = controller ? 1 + random.below(4) : 0;
  const kato = random.chance(0.9) ? 0 : random.pick([3_000_000, 3_600_001, 0xffff_ffff]);
  const entry = connectEntry({ qid, kato, sqsize: random.chance(0.9) ? 31 : random.pick(EDGES) & 0xffff }, cid);
  if (random.chance(0.1)) mutateStruct(random, entry, connectCommand as unknown as Struct<Fields>);
  if (random.chance(0.12)) mutateStruct(random, capsule, connectData as unknown as Struct<Fields>);
  return { entry, capsule };
}

function drawProperty(random: Prng, link: LinkModel, cid: number): DrawnFabrics {
  const name = random.pick(Object.keys(properties) as (keyof typeof properties)[]);
  const { offset, sizeBytes } = properties[name];
  const isFresh = link.controller?.state === 'disabled';
  if (random.chance(0.5)) return { entry: propertyGetEntry(offset, sizeBytes === 8 ? 1 : 0, cid), capsule: NONE };
  const values = [
    CC_ENABLED,
    CC_ENABLED & ~1,
    CC_ENABLED | (1 << 14),
    CC_ENABLED | 0x80,
    random.nextUint32() & 0x0fff_fff1,
  ];
  const value = isFresh && random.chance(0.8) ? CC_ENABLED : random.pick(values);
  const at = random.chance(0.95) ? properties.cc.offset : offset;
  return { entry: propertySetEntry(at, value >>> 0, 0, cid), capsule: NONE };
}

/** The next message of a host that authenticates; `last`: what the drive has sent last. */
function drawMessage(random: Prng, last: Uint8Array, isMutated: boolean): Uint8Array {
  const kind = authenticationMessageOf(last);
  let message: Uint8Array;
  if (kind === 'challenge' && random.chance(0.9)) {
    const hostChallenge = random.chance(0.1) ? random.bytes(32) : undefined;
    message = replyTo(last, secretOf(random.chance(0.85) ? SECRET_FILL : 6), subsystemNqn(SERIAL), hostChallenge);
  } else if (random.chance(0.9)) message = negotiateBytes([1, 2], random.chance(0.9) ? [0] : [1]);
  else {
    const { type, id } = random.pick(Object.values(authenticationMessages));
    message = chapSuccess2.encode({ type, id, transactionId: TRANSACTION_ID });
  }
  if (isMutated) mutateBytes(random, message, 1 + random.below(3));
  if (isMutated && random.chance(0.3)) message = mutateLength(random, message);
  return message;
}

function drawAuthentication(random: Prng, last: Uint8Array, cid: number): DrawnFabrics {
  if (random.chance(0.5)) {
    const length = random.chance(0.9) ? 1024 : random.below(40);
    return { entry: authenticationEntry('authenticationReceive', { kind: 'transport', length }, cid), capsule: NONE };
  }
  const message = drawMessage(random, last, random.chance(0.12));
  const sgl = { kind: 'inCapsule', offset: 0, length: message.length } as const;
  return { entry: authenticationEntry('authenticationSend', sgl, cid), capsule: message };
}

export function drawFabrics(
  random: Prng,
  link: LinkModel,
  controllers: readonly ControllerModel[],
  last: Uint8Array,
  cid: number,
): DrawnFabrics {
  const isNew = link.controller === undefined;
  const weights = isNew
    ? { connect: 20, property: 2, message: 1, disconnect: 1, unknown: 0 }
    : link.isUnproven
      ? { connect: 1, property: 2, message: 20, disconnect: 1, unknown: 0 }
      : { connect: 2, property: 20, message: 3, disconnect: 3, unknown: 1 };
  const kind = random.weighted(weights);
  const drawn = drawKind(random, kind, link, controllers, last, cid);
  if (random.chance(0.12)) mutateEntry(random, drawn.entry);
  // Other opcodes are the business of another target.
  drawn.entry[0] = FABRICS_OPCODE;
  const isOdd = random.chance(0.04);
  return isOdd ? { entry: drawn.entry, capsule: mutateLength(random, drawn.capsule).slice(0, 4096) } : drawn;
}

function drawKind(
  random: Prng,
  kind: 'connect' | 'property' | 'message' | 'disconnect' | 'unknown',
  link: LinkModel,
  controllers: readonly ControllerModel[],
  last: Uint8Array,
  cid: number,
): DrawnFabrics {
  switch (kind) {
    case 'connect':
      return drawConnect(random, link, controllers, cid);
    case 'property':
      return drawProperty(random, link, cid);
    case 'message':
      return drawAuthentication(random, last, cid);
    case 'disconnect':
    case 'unknown': {
      const fctype = kind === 'disconnect' ? fabricsTypes.disconnect.opcode : random.below(256);
      const sgl = encodeSgl({ kind: 'none' });
      const entry = disconnectCommand.encode({ opcode: FABRICS_OPCODE, flags: SGL_FLAGS, commandId: cid, fctype, sgl });
      return { entry, capsule: NONE };
    }
  }
}

function mutateEntry(random: Prng, entry: Uint8Array): void {
  const kind = random.below(4);
  if (kind === 0) mutateStruct(random, entry, connectCommand as unknown as Struct<Fields>);
  else if (kind === 1) mutateBytes(random, entry.subarray(5), 1);
  else {
    const length = random.pick([0, 1, 1023, 1024, 1025, 8193, random.below(5000)]);
    const offset = random.chance(0.6) ? 0 : drawNumber(random);
    const sgl: Sgl = random.pick([
      { kind: 'none' },
      { kind: 'transport', length },
      { kind: 'inCapsule', offset, length },
      { kind: 'keyed', key: random.below(3), offset, length },
    ] as const);
    encodeSgl(sgl, entry, 24);
    if (kind === 3) entry[36 + random.below(3)] = random.below(2);
  }
}
