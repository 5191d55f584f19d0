import { packBits } from '../../../spec/bits.ts';
import {
  adrfams,
  DISCOVERY_UNIT_BYTES,
  discoveryLogEntry,
  discoveryLogHeader,
  subtypes,
  transportRequirementBits,
  trtypes,
} from '../../../spec/discovery.ts';
import { CNTLID_DYNAMIC } from '../../../spec/fabrics.ts';
import {
  discoveryLogPages as pageTable,
  type DiscoveryLogPageName,
  encodeSupportedLogPages,
} from '../../../spec/log-pages.ts';
import type {
  CommandDefinition,
  DiscoveryOptions,
  DiscoveryRecord,
  DiscoverySource,
  Limits,
  NetworkAddress,
} from '../contract.ts';
import { getLogPageOf, type LogPage } from './log-page-reader.ts';

/** The log pages of a discovery controller. */
export function discoveryLogPages({ limits }: DiscoveryOptions, source: DiscoverySource): CommandDefinition {
  const log = new DiscoveryLog(source, limits);
  const builders: Readonly<Record<DiscoveryLogPageName, LogPage['build']>> = {
    supported: () => encodeSupportedLogPages(pageTable),
    error: ({ errors }) => errors.page(),
    discovery: ({ local }) => log.of(local),
  };
  const pages = new Map<number, LogPage>(
    Object.entries(builders).map(([name, build]) => [
      pageTable[name as DiscoveryLogPageName].lid,
      { hasCommandSets: false, specificIdentifier: 0, build },
    ]),
  );
  return getLogPageOf({ limits, pages });
}

/** The encoded page, kept as long as it is what would be encoded: hosts read a long one in many pieces. */
class DiscoveryLog {
  readonly #source: DiscoverySource;
  readonly #limits: Limits;
  #page: Uint8Array = new Uint8Array(0);
  #key = '';

  constructor(source: DiscoverySource, limits: Limits) {
    this.#source = source;
    this.#limits = limits;
  }

  of(local: NetworkAddress | undefined): Uint8Array {
    const { generation } = this.#source;
    const key = `${generation} ${local?.host}`;
    if (key === this.#key) return this.#page;
    this.#page = encodeDiscoveryLog(generation, this.#source.records(local), this.#limits);
    this.#key = key;
    return this.#page;
  }
}

/** That no secure channel is required is left unsaid: libnvme 1.3 asks for TLS where it is said. */
const TRANSPORT_REQUIREMENTS = packBits(transportRequirementBits, { disableSqFlowControl: 1 });

/** Log page 70h. Records of one address are one port. */
export function encodeDiscoveryLog(
  generation: number,
  records: readonly DiscoveryRecord[],
  { adminQueueEntriesMax }: Pick<Limits, 'adminQueueEntriesMax'>,
): Uint8Array {
  const page = new Uint8Array(DISCOVERY_UNIT_BYTES * (1 + records.length));
  discoveryLogHeader.encode({ genctr: generation, numrec: records.length }, page);
  const ports = new Map<string, number>();
  records.forEach(({ subtype, nqn, address }, index) => {
    const trsvcid = String(address.port);
    const key = `${address.host} ${trsvcid}`;
    const portid = ports.get(key) ?? ports.size + 1;
    ports.set(key, portid);
    const fields = {
      trtype: trtypes.tcp,
      adrfam: address.host.includes(':') ? adrfams.ipv6 : adrfams.ipv4,
      subtype: subtypes[subtype],
      treq: TRANSPORT_REQUIREMENTS,
      portid,
      cntlid: CNTLID_DYNAMIC,
      asqsz: adminQueueEntriesMax,
      trsvcid,
      subnqn: nqn,
      traddr: address.host,
    };
    discoveryLogEntry.encode(fields, page, DISCOVERY_UNIT_BYTES * (1 + index));
  });
  return page;
}
