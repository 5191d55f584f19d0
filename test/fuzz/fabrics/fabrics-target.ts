/**
 * Connections from their first command on: Connect of admin and I/O queues by several hosts, properties, resets and shutdowns,
 * authentication, Disconnect, in any order.
 *
 * Whatever comes: a command without a fault succeeds, one with faults fails for one of them; nobody gets in who has not proved
 * who it is; queues end when their controller is reset or gone, and not before; CSTS says what CC has brought about.
 */
import assert from 'node:assert/strict';
import { authenticationMessageOf } from '../../../spec/authentication.ts';
import { commandStatuses } from '../../../spec/command-statuses.ts';
import { type ErrorCode, errorTable } from '../../../spec/errors.ts';
import {
  connectCommand,
  connectData,
  cstsBits,
  DISCOVERY_NQN,
  properties,
  propertyGetCommand,
  propertySetCommand,
  subsystemNqn,
} from '../../../spec/fabrics.ts';
import { unpackBits } from '../../../spec/bits.ts';
import { adminOpcodes, fabricsTypes } from '../../../spec/opcodes.ts';
import { parseSgl } from '../../../spec/sgl.ts';
import { replyTo, secretOf } from '../../controller/chap-host.ts';
import { SERIAL } from '../../controller/rig.ts';
import { entryBytes } from '../../controller/submissions.ts';
import type { Prng } from '../../sim/prng.ts';
import { FuzzDrive, SECRET_FILL } from '../commands/fuzz-drive.ts';
import { type Completion, FuzzLink, turn } from '../commands/fuzz-link.ts';
import { HOSTS, nqnOf } from '../commands/names.ts';
import type { Session, SessionContext, Target } from '../target.ts';
import { drawFabrics } from './draw-fabrics.ts';
import { configure, type ControllerModel, fabricsFaults, type LinkModel } from './fabrics-rules.ts';

const LINKS_MAX = 8;
/** Few enough to be met. */
const ASSOCIATIONS_MAX = 10;
const TURNS_MAX = 4000;

export type FabricsInput =
  | { readonly do: 'open'; readonly isTcp: boolean }
  | { readonly do: 'close'; readonly link: number }
  /** A request that stays, so that its id is in use. */
  | { readonly do: 'park'; readonly link: number; readonly commandId: number }
  | {
      readonly do: 'command';
      readonly link: number;
      readonly entry: Uint8Array;
      readonly capsule: Uint8Array;
      readonly isIntact: boolean;
    };

interface Loose {
  readonly link: FuzzLink;
  readonly model: LinkModel;
  /** The drive's last message, and whether the right answer to it was sent. */
  last: Uint8Array;
  hasProved: boolean;
}

const codeOfStatus = new Map(
  (Object.keys(errorTable) as ErrorCode[]).map((code) => [(errorTable[code].sct << 8) | errorTable[code].sc, code]),
);
const rows = new Map(commandStatuses.filter(({ set }) => set === 'fabrics').map((row) => [row.opcode, row]));

class FabricsSession implements Session<FabricsInput> {
  readonly #drive: FuzzDrive;
  readonly #context: SessionContext;
  #links: Loose[] = [];
  readonly #controllers = new Map<number, ControllerModel>();
  #commandId = 0;

  constructor(drive: FuzzDrive, context: SessionContext) {
    this.#drive = drive;
    this.#context = context;
  }

  draw(random: Prng): FabricsInput {
    const open = this.#links.flatMap(({ link }, i) => (link.isOpen ? [i] : []));
    if (open.length < 2 || (open.length < LINKS_MAX && random.chance(0.12)))
      return { do: 'open', isTcp: random.chance(0.6) };
    const index = random.pick(open);
    if (random.chance(0.02)) return { do: 'close', link: index };
    this.#commandId = (this.#commandId + 1) % 100;
    const { model, last, link } = this.#links[index]!;
    const isAdmin = model.queueId === 0 && model.controller?.state === 'ready' && !model.isUnproven;
    if (isAdmin && random.chance(0.03)) return { do: 'park', link: index, commandId: 200 + random.below(3) };
    const cid = link.inFlightCount > 0 && random.chance(0.05) ? 200 + random.below(3) : this.#commandId;
    const drawn = drawFabrics(random, model, [...this.#controllers.values()], last, cid);
    const isIntact = !random.chance(0.02);
    // Nothing is damaged where there is no data.
    const capsule = isIntact || drawn.capsule.length > 0 ? drawn.capsule : new Uint8Array(random.below(64));
    return { do: 'command', link: index, entry: drawn.entry, capsule, isIntact };
  }

  async play(input: FabricsInput): Promise<void> {
    if (input.do === 'open') {
      const model = { isTcp: input.isTcp, controller: undefined, queueId: 0, isUnproven: false };
      const link = new FuzzLink(this.#drive.subsystem, input.isTcp);
      this.#links.push({ link, model, last: new Uint8Array(0), hasProved: false });
      return;
    }
    const loose = this.#links[input.link];
    if (loose === undefined || !loose.link.isOpen) return;
    if (input.do === 'close') this.#gone(loose);
    else if (input.do === 'park') this.#park(loose, input.commandId);
    else await this.#command(loose, input.entry, input.capsule, input.isIntact);
    this.#check();
  }

  #park({ link }: Loose, commandId: number): void {
    const entry = entryBytes({ opcode: adminOpcodes.asyncEventRequest.opcode }, commandId);
    const transfer = { data: new Uint8Array(0), turns: 0, isIntact: true };
    link.submit(entry, new Uint8Array(0), transfer, () => undefined);
  }

  async #command(loose: Loose, entry: Uint8Array, given: Uint8Array, isIntact: boolean): Promise<void> {
    const { link, model } = loose;
    const capsule = given.subarray(0, link.capsuleDataBytesMax);
    const type = entry[connectCommand.offsetOf.fctype]!;
    const cid = entry[2]! | (entry[3]! << 8);
    const isInUse = link.has(cid);
    const demandsProof = (hostNqn: string): boolean => model.isTcp && hostNqn === nqnOf(HOSTS.stranger);
    const controllers = this.#controllers;
    const faults = isInUse
      ? new Set<ErrorCode>(['commandIdConflict'])
      : fabricsFaults({ entry, capsule, link: model, controllers, demandsProof });
    if (!isIntact && capsule.length > 0 && !isInUse) faults.add('transientTransport');
    this.#context.tally.count(rows.has(type) && !isInUse && isIntact);
    this.#noteMessage(loose, entry, capsule, faults);
    const completion = await this.#run(link, entry, capsule, isIntact);
    if (completion === undefined) return;
    const code = completion.status === 0 ? undefined : codeOfStatus.get(completion.status);
    const row = rows.get(type);
    if (row !== undefined) this.#context.tally.reach(`fabrics ${row.name} ${code ?? 'success'}`);
    const what = row?.name ?? `type ${type}`;
    this.#judge(what, type, faults, code);
    if (code === undefined) await this.#succeeded(loose, type, entry, capsule, completion);
  }

  /** undefined: the queue had no room for it, so its connection has ended. */
  async #run(
    link: FuzzLink,
    entry: Uint8Array,
    capsule: Uint8Array,
    isIntact: boolean,
  ): Promise<Completion | undefined> {
    let completion: Completion | undefined;
    const transfer = { data: capsule, turns: 0, isIntact };
    const { inFlightCount } = link;
    const isTaken = link.submit(entry, capsule, transfer, (one) => (completion = one));
    assert.ok(isTaken || inFlightCount > 0, 'a queue has room for one command');
    if (!isTaken) return undefined;
    for (let turns = 0; completion === undefined && turns < TURNS_MAX; turns++) await turn();
    assert.ok(completion, `type ${entry[4]} is not answered`);
    return completion;
  }

  #judge(what: string, type: number, faults: ReadonlySet<ErrorCode>, code: ErrorCode | undefined): void {
    const listed = rows.get(type);
    const isListed =
      code === undefined ||
      code === 'invalidOpcode' ||
      listed === undefined ||
      [...listed.general, ...listed.own].includes(code);
    assert.ok(isListed, `${what} ends with ${code}, which spec/command-statuses.ts does not have`);
    const list = [...faults].join(', ') || 'nothing';
    if (code === undefined) {
      assert.equal(faults.size, 0, `${what} succeeds, wrong with it is ${list}`);
      return;
    }
    const isMessage =
      type === fabricsTypes.authenticationSend.opcode || type === fabricsTypes.authenticationReceive.opcode;
    // No message is due, or there is no room for it.
    if (isMessage && faults.size === 0 && (code === 'commandSequence' || code === 'invalidField')) return;
    // Others have taken what there is.
    const isFull = code === 'connectBusy' || (code === 'hostQuota' && this.#drive.kind === 'quotas');
    const isTaken = type === fabricsTypes.connect.opcode && isFull;
    assert.ok(faults.has(code) || isTaken, `${what} fails with ${code}, wrong with it is ${list}`);
  }

  /** Whether a host that has to prove who it is sends the proof. */
  #noteMessage(loose: Loose, entry: Uint8Array, capsule: Uint8Array, faults: ReadonlySet<ErrorCode>): void {
    if (entry[4] !== fabricsTypes.authenticationSend.opcode || faults.size > 0) return;
    const sgl = parseSgl(entry, connectCommand.offsetOf.sgl);
    if (!sgl.ok || sgl.value.kind !== 'inCapsule' || authenticationMessageOf(loose.last) !== 'challenge') return;
    const { offset, length } = sgl.value;
    const message = capsule.slice(offset, offset + length);
    const right = replyTo(loose.last, secretOf(SECRET_FILL), subsystemNqn(SERIAL));
    // The response, whatever else the message says.
    if (Buffer.compare(message.subarray(16, 48), right.subarray(16, 48)) === 0) loose.hasProved = true;
  }

  async #succeeded(
    loose: Loose,
    type: number,
    entry: Uint8Array,
    capsule: Uint8Array,
    { dw0, dw1, data }: Completion,
  ): Promise<void> {
    const { model, link } = loose;
    const { controller } = model;
    if (type === fabricsTypes.connect.opcode) this.#connected(loose, entry, capsule, dw0);
    else if (type === fabricsTypes.authenticationReceive.opcode) loose.last = data;
    else if (type === fabricsTypes.disconnect.opcode) {
      assert.ok(!link.isOpen, 'a queue that was disconnected ends');
      this.#gone(loose);
    } else if (type === fabricsTypes.propertySet.opcode) {
      const isReset = configure(controller!, Number(propertySetCommand.decode(entry).value));
      // A shutdown ends a little later.
      for (let i = 0; i < 200 && controller!.state === 'shutDown'; i++) await turn();
      if (isReset) this.#reset(controller!);
    } else if (type === fabricsTypes.propertyGet.opcode) {
      const { ofst } = propertyGetCommand.decode(entry);
      if (ofst === properties.csts.offset) checkStatus(controller!, dw0);
      assert.ok(ofst === properties.cap.offset || dw1 === 0, 'a property of 4 bytes has no upper half');
    }
    if (model.isUnproven && link.isConnected) {
      assert.ok(loose.hasProved, 'a host has got in that has not proved who it is');
      model.isUnproven = false;
    }
  }

  #connected(loose: Loose, entry: Uint8Array, capsule: Uint8Array, dw0: number): void {
    const { model, link } = loose;
    const sgl = parseSgl(entry, connectCommand.offsetOf.sgl);
    const offset = sgl.ok && sgl.value.kind === 'inCapsule' ? sgl.value.offset : 0;
    const { hostnqn, hostid, subnqn, cntlid } = connectData.decode(capsule, offset);
    model.queueId = connectCommand.decode(entry).qid;
    const isDiscovery = subnqn === DISCOVERY_NQN;
    const mustProve = model.isTcp && hostnqn === nqnOf(HOSTS.stranger) && !isDiscovery;
    model.isUnproven = mustProve;
    assert.equal(link.isConnected, !mustProve, 'whether the host is in without a proof');
    assert.equal((dw0 >>> 17) & 1, mustProve ? 1 : 0, 'ATR');
    if (model.queueId !== 0) {
      model.controller = this.#controllers.get(cntlid);
      model.controller!.queues.add(model.queueId);
      assert.equal(dw0 & 0xffff, cntlid, 'the controller that was named');
      return;
    }
    const own = dw0 & 0xffff;
    assert.ok(!this.#controllers.has(own), `controller id ${own} is new`);
    const hostId = Buffer.from(hostid).toString('hex');
    const controller = {
      cntlid: own,
      hostNqn: hostnqn,
      hostId,
      isTcp: model.isTcp,
      isDiscovery,
      queues: new Set<number>(),
    };
    model.controller = { ...controller, state: 'disabled', isEnabled: false };
    this.#controllers.set(own, model.controller);
  }

  /** The I/O queues of a controller end with its reset. */
  #reset(controller: ControllerModel): void {
    for (const { link, model } of this.#links) {
      if (model.controller !== controller || model.queueId === 0) continue;
      assert.ok(!link.isOpen, 'a queue of a controller that was reset has ended');
      model.controller = undefined;
    }
  }

  /** A connection is over: with an admin queue all of its association is. */
  #gone(loose: Loose): void {
    const { link, model } = loose;
    link.close();
    const { controller } = model;
    if (controller === undefined) return;
    controller.queues.delete(model.queueId);
    model.controller = undefined;
    if (model.queueId !== 0) return;
    this.#controllers.delete(controller.cntlid);
    for (const other of this.#links) {
      if (other.model.controller !== controller) continue;
      assert.ok(!other.link.isOpen, 'a queue of an association that is gone has ended');
      other.model.controller = undefined;
    }
  }

  #check(): void {
    const [fatal] = this.#drive.fatals;
    if (fatal !== undefined) throw new Error(`broken: ${String(fatal)}`, { cause: fatal });
    for (const loose of this.#links) {
      const { link } = loose;
      if (link.isOpen) continue;
      const { endReason } = link;
      const isExplained = endReason === undefined || !/keep alive/.test(endReason);
      assert.ok(isExplained, `the drive has ended a connection: ${endReason}`);
      this.#gone(loose);
    }
    this.#links = this.#links.length > 4 * LINKS_MAX ? this.#links.filter(({ link }) => link.isOpen) : this.#links;
  }

  async close(): Promise<void> {
    for (const loose of this.#links) loose.link.close();
    await this.#drive.close();
  }
}

function checkStatus({ state }: ControllerModel, csts: number): void {
  const { rdy, cfs, shst } = unpackBits(cstsBits, csts);
  assert.equal(rdy, state === 'ready' || state === 'shutDown' ? 1 : 0, `CSTS.RDY of a controller that is ${state}`);
  assert.equal(cfs, state === 'failed' ? 1 : 0, `CSTS.CFS of a controller that is ${state}`);
  assert.equal(shst, state === 'shutDown' ? 2 : 0, `CSTS.SHST of a controller that is ${state}`);
}

export const fabricsTarget: Target<FabricsInput> = {
  name: 'fabrics',
  what: 'Fabrics commands on connections of several hosts, from Connect and authentication to their end',
  framing: 'the command is one of Fabrics, its id was free and its data intact',
  share: 0.8,
  casesPerSession: 400,
  smokeCases: 1600,
  bugs: {},
  open: async (context) =>
    new FabricsSession(await FuzzDrive.open(context.random, { associationCountMax: ASSOCIATIONS_MAX }), context),
};
