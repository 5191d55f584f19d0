import type { HostPolicy, HostRules, HostTransport } from './contract.ts';
import { type HostsFile, openDoor } from './hosts-file.ts';

const trusted: HostRules = { authentication: undefined };

/** The hosts of a hosts file, which may be read again while the drive runs. */
export class HostDirectory implements HostPolicy {
  #file: HostsFile;
  #rules: ReadonlyMap<string, HostRules>;

  constructor(file: HostsFile = openDoor) {
    this.#file = file;
    this.#rules = rulesByNqn(file);
  }

  /** From now on; who is connected stays so until `Subsystem.hostsChanged`. */
  replace(file: HostsFile): void {
    this.#file = file;
    this.#rules = rulesByNqn(file);
  }

  rulesOf(hostNqn: string, transport: HostTransport): HostRules | undefined {
    const rules = this.#rules.get(hostNqn) ?? (this.#file.allowsOthers ? trusted : undefined);
    if (transport === 'unix' && !this.#file.coversUnix) return trusted;
    return rules;
  }
}

const rulesByNqn = ({ hosts }: HostsFile): ReadonlyMap<string, HostRules> =>
  new Map(hosts.map(({ nqn, authentication }) => [nqn, { authentication }]));
