/** Registrations with a discovery service, nearly right. */
import {
  adrfams,
  dimEntities,
  dimEntryFormats,
  dimHeader,
  DISCOVERY_UNIT_BYTES,
  discoveryLogEntry,
  subtypes,
  trtypes,
} from '../../../spec/discovery.ts';
import { subnqnOf } from './names.ts';
import { discoveryOpcodes } from '../../../spec/opcodes.ts';
import type { Fields, Struct } from '../../../spec/struct.ts';
import type { Prng } from '../../sim/prng.ts';
import { mutateStruct } from '../mutate.ts';
import { type BuiltCommand, nearly } from './built-command.ts';
import type { HostModel } from './drive-model.ts';

export function drawRegistration(random: Prng, host: HostModel): BuiltCommand {
  const count = random.below(6);
  const send = new Uint8Array(DISCOVERY_UNIT_BYTES * (1 + count));
  const known = [...host.entities];
  dimHeader.encode(
    {
      tdl: send.length,
      nument: nearly(random, count),
      entfmt: dimEntryFormats.basic,
      etype: random.chance(0.9) ? dimEntities.directDiscoveryController : random.below(4),
      eid: known.length > 0 && random.chance(0.5) ? random.pick(known) : subnqnOf(random.below(6)),
      ename: 'drive',
    },
    send,
  );
  for (let i = 0; i < count; i++) {
    const isIpv6 = random.chance(0.3);
    const fields = {
      trtype: trtypes.tcp,
      adrfam: isIpv6 ? adrfams.ipv6 : adrfams.ipv4,
      subtype: subtypes.nvm,
      trsvcid: String(1 + random.below(65_535)),
      subnqn: subnqnOf(random.below(6)),
      traddr: isIpv6 ? 'fe80::1' : `192.0.2.${random.below(256)}`,
    };
    discoveryLogEntry.encode(fields, send, DISCOVERY_UNIT_BYTES * (1 + i));
  }
  if (random.chance(0.2)) {
    const isHeader = count === 0 || random.chance(0.4);
    const struct = (isHeader ? dimHeader : discoveryLogEntry) as unknown as Struct<Fields>;
    mutateStruct(random, send, struct, isHeader ? 0 : DISCOVERY_UNIT_BYTES * (1 + random.below(count)));
  }
  const { opcode } = discoveryOpcodes.discoveryInformationManagement;
  return { opcode, cdw10: random.chance(0.95) ? random.below(3) : random.below(16), send };
}
