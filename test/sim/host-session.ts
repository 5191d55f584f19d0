/** A host that works on the drive, over one association after another. */
import { features } from '../../spec/features.ts';
import { limits } from '../../spec/limits.ts';
import { adminOpcodes } from '../../spec/opcodes.ts';
import { type Completion, Host, type HostModules } from './host.ts';
import type { Subsystem } from '../../daemon/controller/subsystem.ts';

export class HostSession {
  host: Host;
  /** Its controller was told to have no volatile write cache, and has said yes. */
  #isWriteThrough = false;
  #settingCount = 0;
  #settingsInFlight = 0;
  #slot = 0;

  private constructor(host: Host) {
    this.host = host;
  }

  static async open(subsystem: Subsystem, modules: HostModules): Promise<HostSession> {
    return new HostSession(await Host.connect(subsystem, modules));
  }

  /** Number of a result slot that no other command uses. */
  takeSlot(): number {
    this.#slot = (this.#slot + 1) % limits.resultSlotCountMax;
    return this.#slot;
  }

  /** For a command that is submitted now: whether it is durable on completion, to be asked then. */
  writeThrough(): () => boolean {
    const { host } = this;
    const setting = this.#settingCount;
    const isWriteThrough = this.#isWriteThrough;
    return () => isWriteThrough && setting === this.#settingCount && host === this.host;
  }

  /** Switches the volatile write cache off, or on again. */
  async setWriteThrough(isWriteThrough: boolean): Promise<Completion> {
    // While it is being set, and if several set it at once, nobody knows.
    this.#isWriteThrough = false;
    const { host } = this;
    const isAlone = this.#settingsInFlight++ === 0;
    const setting = ++this.#settingCount;
    const { opcode } = adminOpcodes.setFeatures;
    const { fid } = features.volatileWriteCache;
    const completion = await host.admin.run({ opcode, cdw10: fid, cdw11: isWriteThrough ? 0 : 1 });
    this.#settingsInFlight--;
    const isKnown = isAlone && setting === this.#settingCount && completion.error === undefined && host === this.host;
    this.#isWriteThrough = isKnown && isWriteThrough;
    return completion;
  }

  /** The association ends in the middle of whatever it does; another takes its place. */
  async renew(subsystem: Subsystem, modules: HostModules): Promise<void> {
    this.host.disconnect();
    this.#isWriteThrough = false;
    this.#settingCount++;
    const host = await Host.connect(subsystem, modules);
    this.host = host;
  }
}
