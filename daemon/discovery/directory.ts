import { DriveError } from '../base/errors.ts';
import type {
  DiscoveryRecord,
  DiscoveryRegistrations,
  DiscoverySource,
  Limits,
  NetworkAddress,
} from '../commands/contract.ts';

/**
 * Where the drives of a rack are: records that somebody wrote down, and those that drives register and that live as long as
 * the drive stays connected. A drive that dies is gone with its connection.
 */
export class DiscoveryDirectory implements DiscoverySource, DiscoveryRegistrations {
  readonly #limits: Pick<Limits, 'discoveryEntryCountMax'>;
  readonly #onChange: () => void;
  #fixed: readonly DiscoveryRecord[] = [];
  /** By association, then by the NQN of the entity that registered. */
  readonly #registered = new Map<object, Map<string, readonly DiscoveryRecord[]>>();
  #generation = 0;
  readonly registrations = this;

  /** `onChange` is told after each change of the records. */
  constructor(options: { limits: Pick<Limits, 'discoveryEntryCountMax'> }, modules: { onChange: () => void }) {
    this.#limits = options.limits;
    this.#onChange = modules.onChange;
  }

  get generation(): number {
    return this.#generation;
  }

  /** Fixed records first, then registered ones in the order of their coming. One of each subsystem and address. */
  records(_local?: NetworkAddress): readonly DiscoveryRecord[] {
    const all = [...this.#fixed];
    for (const entities of this.#registered.values()) for (const records of entities.values()) all.push(...records);
    const unique = new Map(all.map((record) => [keyOf(record), record]));
    return [...unique.values()];
  }

  /** Replaces the fixed records. DriveError discoveryLimit. */
  setFixed(records: readonly DiscoveryRecord[]): void {
    this.#checkRoom(records.length - this.#fixed.length);
    const before = this.#keys();
    this.#fixed = records;
    this.#changedSince(before);
  }

  register(owner: object, entityNqn: string, records: readonly DiscoveryRecord[]): boolean {
    const isFirst = !this.#registered.has(owner);
    const entities = this.#registered.get(owner) ?? new Map<string, readonly DiscoveryRecord[]>();
    const replaced = entities.get(entityNqn);
    this.#checkRoom(weightOf(records) - (replaced === undefined ? 0 : weightOf(replaced)));
    const before = this.#keys();
    entities.set(entityNqn, records);
    this.#registered.set(owner, entities);
    this.#changedSince(before);
    return isFirst;
  }

  deregister(owner: object, entityNqn: string): boolean {
    const entities = this.#registered.get(owner);
    const before = this.#keys();
    if (entities === undefined || !entities.delete(entityNqn)) return false;
    this.#changedSince(before);
    return true;
  }

  ended(owner: object): void {
    const before = this.#keys();
    if (this.#registered.delete(owner)) this.#changedSince(before);
  }

  #checkRoom(moreCount: number): void {
    let count = this.#fixed.length + moreCount;
    for (const entities of this.#registered.values())
      for (const records of entities.values()) count += weightOf(records);
    const { discoveryEntryCountMax } = this.#limits;
    if (count > discoveryEntryCountMax) {
      throw new DriveError('discoveryLimit', `${count} entries, allowed: ${discoveryEntryCountMax}`);
    }
  }

  #keys(): string {
    return this.records().map(keyOf).join('\n');
  }

  /** A drive that registers the same again changes nothing. */
  #changedSince(before: string): void {
    if (this.#keys() === before) return;
    this.#generation++;
    this.#onChange();
  }
}

/** An entity that registers nothing takes room too. */
const weightOf = ({ length }: readonly DiscoveryRecord[]): number => Math.max(length, 1);

const keyOf = ({ subtype, nqn, address }: DiscoveryRecord): string =>
  `${subtype} ${nqn} ${address.host} ${address.port}`;
