import { standardQuotas } from '../../spec/host-quotas.ts';
import type { HostPolicy, HostRules, HostTransport } from './contract.ts';
import { type HostsFile, openDoor } from './hosts-file.ts';

const trusted: HostRules = { authentication: undefined, quotas: standardQuotas, isConfined: false };

/** The hosts of a hosts file, which may be read again while the drive runs. */
export class HostDirectory implements HostPolicy {
  #file: HostsFile;
  #rules: ReadonlyMap<string, HostRules>;
  #others: HostRules;
  /** What of those goes for hosts on the Unix socket. */
  #onUnix: ReadonlyMap<HostRules, HostRules>;

  constructor(file: HostsFile = openDoor) {
    this.#file = file;
    this.#rules = rulesByNqn(file);
    this.#others = othersOf(file);
    this.#onUnix = onUnix([...this.#rules.values(), this.#others]);
  }

  /** From now on; who is connected stays so until `Subsystem.hostsChanged`. */
  replace(file: HostsFile): void {
    this.#file = file;
    this.#rules = rulesByNqn(file);
    this.#others = othersOf(file);
    this.#onUnix = onUnix([...this.#rules.values(), this.#others]);
  }

  /** Asked for with every command. */
  rulesOf(hostNqn: string, transport: HostTransport): HostRules | undefined {
    const rules = this.#rules.get(hostNqn) ?? (this.#file.allowsOthers ? this.#others : undefined);
    if (transport === 'tcp' || this.#file.coversUnix) return rules;
    return rules === undefined ? trusted : this.#onUnix.get(rules);
  }
}

const rulesByNqn = ({ hosts }: HostsFile): ReadonlyMap<string, HostRules> =>
  new Map(hosts.map(({ nqn, ...rules }) => [nqn, rules]));

/** Who may open the socket may do everything; quotas keep programs from each other's feet all the same. */
const onUnix = (rules: readonly HostRules[]): ReadonlyMap<HostRules, HostRules> =>
  new Map(rules.map((each) => [each, { ...trusted, quotas: each.quotas }]));

/** A host without a name of its own in the file sees its own where any listed host is held to that. */
const othersOf = ({ hosts }: HostsFile): HostRules => ({ ...trusted, isConfined: hosts.length > 0 });
