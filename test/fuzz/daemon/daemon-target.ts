/**
 * A daemon in a process of its own, over its Unix socket and TCP: connections that connect, enable, send commands and data, with
 * digests and without, and go wrong somewhere.
 *
 * Whatever comes: what the daemon sends are whole PDUs of the kinds that a controller sends, with digests that fit; no command is
 * answered twice; a connection whose host has ended its side ends; the daemon lives, takes no more memory than at first, and
 * ends in order when it is told to.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { digestBits, pduTypes } from '../../../spec/pdu.ts';
import { ANY_SUBSYSTEM_NQN } from '../../../spec/fabrics.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import { CC_ENABLED, PROPERTY_CC } from '../../controller/rig.ts';
import { RawHost } from '../../controller/raw-host.ts';
import { entryBytes, propertySetEntry } from '../../controller/submissions.ts';
import type { Prng } from '../../sim/prng.ts';
import { DaemonProcess } from '../../tools/daemon-process.ts';
import { locateDrive } from '../../../client/index.ts';
import { HostModel } from '../commands/drive-model.ts';
import { drawAdmin } from '../commands/draw-admin.ts';
import { joined, mutateBytes } from '../mutate.ts';
import type { Session, SessionContext, Target } from '../target.ts';

const MIB = 2 ** 20;
/** Of resident memory, which a heap that grows to its size takes too. */
const GROWTH_MAX_BYTES = 200 * MIB;
const COMMANDS_MAX = 8;

/** One command: its entry, and its data in the capsule. */
interface Sent {
  readonly entry: Uint8Array;
  readonly data: Uint8Array;
}

export interface DaemonInput {
  readonly isTcp: boolean;
  readonly digests: number;
  readonly commands: readonly Sent[];
  /** H2CData that nobody has asked for. */
  readonly stray: Uint8Array;
  /** Bytes of all of it that are changed: where, and to what. */
  readonly flips: readonly { readonly at: number; readonly value: number }[];
  /** What is left out at the end. */
  readonly cut: number;
}

const controllerPdus: ReadonlySet<number> = new Set([
  pduTypes.capsuleResp.type,
  pduTypes.c2hData.type,
  pduTypes.r2t.type,
  pduTypes.c2hTermReq.type,
]);

function drawCommand(random: Prng, host: HostModel, commandId: number): Sent {
  const { send, take, ...built } = drawAdmin(random, host);
  // An association that formats or expires is another's business.
  const opcode = built.opcode === adminOpcodes.formatNvm.opcode ? adminOpcodes.keepAlive.opcode : built.opcode;
  const data = send ?? new Uint8Array(0);
  const sgl =
    send !== undefined
      ? ({ kind: 'inCapsule', offset: 0, length: send.length } as const)
      : take !== undefined
        ? ({ kind: 'transport', length: take } as const)
        : ({ kind: 'none' } as const);
  const entry = entryBytes({ ...built, opcode, sgl }, commandId);
  if (random.chance(0.2)) mutateBytes(random, entry.subarray(4), 1);
  return { entry, data };
}

class DaemonSession implements Session<DaemonInput> {
  readonly #context: SessionContext;
  readonly #daemon: DaemonProcess;
  readonly #addresses: { readonly unix: string; readonly tcp: string };
  readonly #processId: number;
  readonly #host = new HostModel(1, 'io');
  #firstBytes: number | undefined;

  constructor(context: SessionContext, daemon: DaemonProcess) {
    this.#context = context;
    this.#daemon = daemon;
    const { drive } = locateDrive(daemon.folder);
    assert.ok(drive, 'the daemon is found');
    this.#addresses = { unix: `unix:${drive.nvmeSocket}`, tcp: `tcp:${drive.tcp.replace(/^tcp:/, '')}` };
    this.#processId = drive.processId;
  }

  draw(random: Prng): DaemonInput {
    const count = 1 + random.below(COMMANDS_MAX);
    const isWrong = random.chance(0.4);
    return {
      isTcp: random.chance(0.5),
      digests: random.below(4),
      commands: Array.from({ length: count }, (_, i) => drawCommand(random, this.#host, 10 + i)),
      stray: random.chance(0.1) ? random.bytes(1 + random.below(40)) : new Uint8Array(0),
      flips: isWrong
        ? Array.from({ length: 1 + random.below(3) }, () => ({ at: random.nextUint32(), value: 1 + random.below(255) }))
        : [],
      cut: random.chance(0.1) ? random.below(200) : 0,
    };
  }

  async play(input: DaemonInput): Promise<void> {
    const host = await RawHost.open(this.#addresses[input.isTcp ? 'tcp' : 'unix']);
    try {
      await host.initialize({ dgst: input.digests });
      assert.equal(
        host.digests.header,
        (input.digests & digestBits.header) !== 0,
        'header digests as they were asked for',
      );
      host.write(this.#streamOf(host, input));
      host.socket.end();
      await this.#readAll(host, input.commands.length + 2);
    } finally {
      host.close();
    }
  }

  #streamOf(host: RawHost, { commands, stray, flips, cut }: DaemonInput): Uint8Array {
    const stream = joined([
      host.connectBytes({}, { subnqn: ANY_SUBSYSTEM_NQN }),
      host.capsuleBytes(propertySetEntry(PROPERTY_CC, CC_ENABLED, 0, host.commandId())),
      ...commands.map(({ entry, data }) => host.capsuleBytes(entry, data)),
      ...(stray.length > 0 ? [host.h2cDataBytes(10, 1, 0, stray, true)] : []),
    ]);
    for (const { at, value } of flips) stream[at % stream.length]! ^= value;
    return stream.slice(0, Math.max(0, stream.length - cut));
  }

  async #readAll(host: RawHost, sentCount: number): Promise<void> {
    let completions = 0;
    for (let pdu = await host.next(); pdu !== undefined; pdu = await host.next()) {
      assert.ok(controllerPdus.has(pdu.type), `PDU type ${pdu.type} of a controller`);
      if (pdu.type === pduTypes.capsuleResp.type) completions++;
    }
    assert.ok(completions <= sentCount, `${completions} completions of ${sentCount} commands`);
    this.#context.tally.count(completions > 0);
    if (this.#context.tally.cases === WARM_CASES) this.#firstBytes = this.#residentBytes();
  }

  #residentBytes(): number {
    const pages = readFileSync(`/proc/${this.#processId}/statm`, 'utf8').split(' ')[1];
    return Number(pages) * 4096;
  }

  async close(): Promise<void> {
    try {
      const host = await RawHost.open(this.#addresses.unix);
      await host.initialize();
      assert.equal((await host.connect({}, { subnqn: ANY_SUBSYSTEM_NQN })).status, 0, 'the next host gets in');
      host.close();
      const growth = this.#firstBytes === undefined ? 0 : this.#residentBytes() - this.#firstBytes;
      assert.ok(growth < GROWTH_MAX_BYTES, `the daemon has grown by ${growth} bytes`);
      assert.equal(await this.#daemon.end('SIGTERM'), 0, `the daemon ends in order: ${this.#daemon.said}`);
      assert.ok(!/internal error|InvariantError|\bat .*\.(ts|js):\d/.test(this.#daemon.said), this.#daemon.said);
    } finally {
      await this.#daemon.remove();
    }
  }
}

/** Cases after which a daemon has what it needs. */
const WARM_CASES = 300;

export const daemonTarget: Target<DaemonInput> = {
  name: 'daemon',
  what: 'a daemon over its sockets: connections of an admin queue, with digests and without',
  framing: 'at least one command of the connection was answered',
  share: 0.01,
  casesPerSession: 1500,
  smokeCases: 150,
  bugs: {},
  open: async (context) => {
    const daemon = new DaemonProcess('16MiB', '8MiB');
    try {
      await daemon.start(['--tcp', '127.0.0.1:0', '--workers', '0']);
      return new DaemonSession(context, daemon);
    } catch (error) {
      await daemon.remove();
      throw error;
    }
  },
};
