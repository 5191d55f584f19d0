import { type HostQuota, hostQuotaNames, type HostQuotas, standardQuotas } from '../../spec/host-quotas.ts';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';

/** What one host has on this drive, over all its associations, and how much it may. */
export class HostAccount {
  readonly #used = Object.fromEntries(hostQuotaNames.map((name) => [name, 0])) as Record<HostQuota, number>;
  readonly #quotas: () => HostQuotas;
  readonly #onRefused: (quota: HostQuota) => void;
  /** Of the quotas that every command is held to. */
  #commandCountMax = 0;
  #dataBytesMax = 0;

  /** `quotas` may answer otherwise while the host is connected; `quotasChanged` has to be called then. */
  constructor(modules: { quotas: () => HostQuotas; onRefused: (quota: HostQuota) => void }) {
    this.#quotas = modules.quotas;
    this.#onRefused = modules.onRefused;
    this.quotasChanged();
  }

  quotasChanged(): void {
    const { commands, dataBytes } = this.#quotas();
    this.#commandCountMax = commands;
    this.#dataBytesMax = dataBytes;
  }

  used(quota: HostQuota): number {
    return this.#used[quota];
  }

  get isEmpty(): boolean {
    return hostQuotaNames.every((name) => this.#used[name] === 0);
  }

  /** Whether so much more may be had, besides `elsewhere` that is counted by others. */
  fits(quota: HostQuota, amount: number, elsewhere = 0): boolean {
    return this.#used[quota] + elsewhere + amount <= this.#quotas()[quota];
  }

  /** DriveError hostQuota. */
  check(quota: HostQuota, amount: number, elsewhere = 0): void {
    if (this.fits(quota, amount, elsewhere)) return;
    this.#onRefused(quota);
    const used = this.#used[quota] + elsewhere;
    throw new DriveError('hostQuota', `${amount} ${quota} more than ${used}, allowed: ${this.#quotas()[quota]}`);
  }

  /** DriveError hostQuota; then nothing is taken. */
  take(quota: HostQuota, amount: number): void {
    this.check(quota, amount);
    this.#used[quota] += amount;
  }

  /** What has to happen whether it fits or not. */
  add(quota: HostQuota, amount: number): void {
    this.#used[quota] += amount;
  }

  give(quota: HostQuota, amount: number): void {
    this.#used[quota] -= amount;
    assert(this.#used[quota] >= 0, () => `${quota} of a host are given back once`);
  }

  // --- The same of what every command counts: by a fixed name, since one that varies is searched for each time ---

  addCommand(): void {
    this.#used.commands++;
  }

  giveCommand(): void {
    this.#used.commands--;
    assert(this.#used.commands >= 0, 'a command is given back once');
  }

  /** Of those that were added. DriveError hostQuota. */
  checkCommands(): void {
    if (this.#used.commands > this.#commandCountMax) this.check('commands', 0);
  }

  /** A host that has none may always have some. */
  fitsData(bytes: number): boolean {
    const used = this.#used.dataBytes;
    return used === 0 || used + bytes <= this.#dataBytesMax;
  }

  addData(bytes: number): void {
    this.#used.dataBytes += bytes;
  }

  giveData(bytes: number): void {
    this.#used.dataBytes -= bytes;
    assert(this.#used.dataBytes >= 0, 'data is given back once');
  }
}

interface Entry {
  readonly account: HostAccount;
  /** Controllers of the host. */
  controllerCount: number;
}

/** The accounts of all hosts that are connected, or still have something. */
export class HostAccounts {
  readonly #entries = new Map<string, Entry>();
  readonly #refusedCounts = new Map<HostQuota, number>(hostQuotaNames.map((name) => [name, 0]));

  get size(): number {
    return this.#entries.size;
  }

  /** Times that a host wanted more than it may have. */
  get refusedCounts(): ReadonlyMap<HostQuota, number> {
    return this.#refusedCounts;
  }

  /** What `quotasOf` answers has changed, maybe. */
  quotasChanged(): void {
    for (const { account } of this.#entries.values()) account.quotasChanged();
  }

  /** A controller of a host begins. `quotasOf` is asked as long as the account is there. */
  enter(hostNqn: string, quotasOf: () => HostQuotas | undefined): HostAccount {
    for (const [nqn, { account, controllerCount }] of this.#entries) {
      if (controllerCount === 0 && account.isEmpty) this.#entries.delete(nqn);
    }
    let entry = this.#entries.get(hostNqn);
    if (entry === undefined) {
      const onRefused = (quota: HostQuota): void => {
        this.#refusedCounts.set(quota, (this.#refusedCounts.get(quota) ?? 0) + 1);
      };
      const quotas = (): HostQuotas => quotasOf() ?? standardQuotas;
      entry = { account: new HostAccount({ quotas, onRefused }), controllerCount: 0 };
      this.#entries.set(hostNqn, entry);
    }
    entry.controllerCount++;
    return entry.account;
  }

  /** It ends; what its commands still hold is given back later. */
  leave(hostNqn: string): void {
    const entry = this.#entries.get(hostNqn);
    assert(entry !== undefined && entry.controllerCount > 0, 'a controller that ends has begun');
    entry.controllerCount--;
  }
}
