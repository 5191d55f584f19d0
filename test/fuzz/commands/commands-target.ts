/**
 * Commands of I/O and discovery controllers, on several queues of several hosts, over a whole drive in memory.
 *
 * Whatever comes: every command is answered, a command without a fault succeeds and does what the models say, one with
 * faults fails for one of them and changes nothing, no status is outside its command's row of `spec/command-statuses.ts`, no
 * invariant breaks, and nothing is left when the hosts are gone.
 */
import { FABRICS_OPCODE } from '../../../spec/opcodes.ts';
import type { Prng } from '../../sim/prng.ts';
import type { Session, SessionContext, Target } from '../target.ts';
import { plant } from './bugs.ts';
import { CommandDesk } from './command-desk.ts';
import { type BurstKind, burstChanceOf, drawBurst, drawCommand, type Input } from './draw-command.ts';
import { FuzzDrive } from './fuzz-drive.ts';
import type { Trouble } from './troubled-stores.ts';

const BURST_MAX = 8;
/** Most of it passes; a disk that took no record or sync takes no more. */
const troubleWeights: Readonly<Record<Trouble, number>> = {
  none: 8,
  reads: 8,
  programs: 3,
  dies: 3,
  records: 2,
  syncs: 1,
};

class CommandSession implements Session<Input> {
  readonly #drive: FuzzDrive;
  readonly #desk: CommandDesk;
  /** Inputs of the burst that are still to come. */
  #burstLeft = 0;
  #burst: BurstKind = { queues: undefined, begins: 'anything' };
  #commandId = 0;

  constructor(drive: FuzzDrive, desk: CommandDesk) {
    this.#drive = drive;
    this.#desk = desk;
  }

  draw(random: Prng): Input {
    const isFirst = this.#burstLeft === 0 && random.chance(burstChanceOf(this.#drive.kind));
    if (isFirst) this.#burst = drawBurst(random, this.#drive.kind);
    if (isFirst) this.#burstLeft = 2 + random.below(BURST_MAX);
    else if (this.#burstLeft > 0) this.#burstLeft--;
    const isBurst = this.#burstLeft > 0;
    if (!isBurst && random.chance(0.015)) return { do: 'advance', ms: random.pick([1, 10, 500, 5000]) };
    if (random.chance(0.003)) return { do: 'reconnect' };
    if (this.#drive.kind === 'troubled' && random.chance(0.02)) {
      return { do: 'trouble', trouble: random.weighted(troubleWeights) };
    }
    this.#commandId = (this.#commandId + 1) % 500;
    const burst = isBurst ? { ...this.#burst, isFirst } : undefined;
    const input = drawCommand(random, this.#drive, { commandId: this.#commandId, running: this.#desk.running }, burst);
    // Fabrics commands are the business of another target.
    if (input.entry[0] === FABRICS_OPCODE) input.entry[0] = 0;
    return input;
  }

  async play(input: Input): Promise<void> {
    switch (input.do) {
      case 'command':
        await this.#desk.run(input);
        break;
      case 'advance':
        await this.#desk.settle();
        this.#desk.advance(input.ms);
        break;
      case 'trouble':
        await this.#desk.settle();
        this.#drive.stores.trouble = input.trouble;
        break;
      case 'reconnect':
        await this.#desk.reconnect('other io');
    }
    this.#desk.check();
  }

  async close(): Promise<void> {
    await this.#desk.settle();
    this.#desk.end();
    await this.#drive.close();
  }
}

async function open({ random, tally, bug }: SessionContext): Promise<CommandSession> {
  const drive = await FuzzDrive.open(random);
  if (bug !== undefined) plant(bug, drive.drive);
  return new CommandSession(drive, new CommandDesk(drive, tally));
}

export const commandsTarget: Target<Input> = {
  name: 'commands',
  what: 'commands of admin and I/O queues over a whole drive, against models of what each may answer',
  framing: 'the entry, its SGL, its namespace and its opcode were right, so that the command itself looked at it',
  share: 4,
  casesPerSession: 600,
  smokeCases: 6000,
  bugs: {
    readsOtherBlock: 'a Read of LBA 5 gives what LBA 6 holds',
    takesGaps: 'an append beyond the length of its layer is taken',
    shortTruncate: 'Truncate leaves one token more than it was to',
    listsReclaimed: 'the list of sequences leaves out the first',
  },
  open,
};
