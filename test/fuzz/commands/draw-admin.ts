/** Admin commands of both kinds of controller, nearly right. */
import { features, timestampData, hostBehaviorData } from '../../../spec/features.ts';
import { cnsValues, IDENTIFY_BYTES } from '../../../spec/identify.ts';
import { KV_CACHE_CSI, regionDescriptor } from '../../../spec/kv-commands.ts';
import { discoveryLogPages, logPages } from '../../../spec/log-pages.ts';
import { adminOpcodes } from '../../../spec/opcodes.ts';
import type { Prng } from '../../sim/prng.ts';
import { drawNumber } from '../mutate.ts';
import { type BuiltCommand, nearly } from './built-command.ts';
import { drawRegistration } from './draw-registration.ts';
import type { HostModel } from './drive-model.ts';

const nsids = [0, 1, 2, 3, 0xffff_fffe, 0xffff_ffff] as const;

function identify(random: Prng, host: HostModel): BuiltCommand {
  const cns = host.kind !== 'io' ? 1 : random.pick(Object.values(cnsValues)).cns;
  return {
    opcode: adminOpcodes.identify.opcode,
    nsid: random.pick(nsids),
    cdw10: nearly(random, cns),
    cdw11: random.chance(0.6)
      ? 0
      : random.pick([0, KV_CACHE_CSI, 1, 7]) * 2 ** 24 + (random.chance(0.2) ? random.below(3) : 0),
    take: IDENTIFY_BYTES,
  };
}

function getLogPage(random: Prng, host: HostModel): BuiltCommand {
  const pages: readonly { lid: number; sizeBytes: number }[] = Object.values(
    host.kind === 'io' ? logPages : discoveryLogPages,
  );
  const { lid, sizeBytes } = random.pick(pages);
  const dwords = random.pick([1, 16, sizeBytes / 4, 1 + random.below(300)]);
  const isEndurance = lid === logPages.enduranceGroup.lid;
  const rae = random.chance(0.3) ? 2 ** 15 : 0;
  return {
    opcode: adminOpcodes.getLogPage.opcode,
    nsid: random.chance(0.9) ? random.pick([0, 0xffff_ffff]) : random.pick(nsids),
    cdw10: (nearly(random, lid) & 0xff) + rae + (dwords - 1) * 65_536,
    cdw11: isEndurance ? nearly(random, 65_536) : nearly(random, 0),
    cdw12: random.chance(0.6) ? 0 : nearly(random, 4 * random.below(sizeBytes / 4 + 2)),
    cdw14: lid === logPages.effects.lid && random.chance(0.5) ? KV_CACHE_CSI * 2 ** 24 : nearly(random, 0),
    take: 4 * dwords,
  };
}

/** Mostly values that may be set. Keep alive timeouts are long: no association is to end of them. */
function setFeatures(random: Prng): BuiltCommand {
  const name = random.pick(Object.keys(features) as (keyof typeof features)[]);
  const { fid, dataBytes } = features[name];
  const value =
    name === 'keepAliveTimer'
      ? random.pick([0, 0, 3_000_000, 3_600_000, 3_600_001])
      : name === 'asyncEventConfiguration'
        ? random.pick([0x100, 0x11f, 0, 0x8000_0000])
        : name === 'volatileWriteCache'
          ? random.below(2)
          : random.chance(0.5)
            ? 0
            : drawNumber(random);
  const save = random.chance(0.04) ? 2 ** 31 : 0;
  const send = new Uint8Array(dataBytes);
  if (dataBytes === hostBehaviorData.sizeBytes) send[0] = random.below(2);
  else if (dataBytes === timestampData.sizeBytes) random.fill(send.subarray(0, 6));
  return {
    opcode: adminOpcodes.setFeatures.opcode,
    nsid: random.chance(0.9) ? 0 : random.pick(nsids),
    cdw10: fid + save,
    cdw11: value,
    ...(dataBytes > 0 && { send }),
  };
}

function getFeatures(random: Prng): BuiltCommand {
  const name = random.pick(Object.keys(features) as (keyof typeof features)[]);
  const select = random.chance(0.6) ? 0 : random.below(5);
  const cdw11 = name === 'hostIdentifier' ? 1 : name === 'temperatureThreshold' ? random.below(2) * 2 ** 20 : 0;
  return {
    opcode: adminOpcodes.getFeatures.opcode,
    cdw10: features[name].fid + select * 256,
    cdw11: nearly(random, cdw11),
    ...(random.chance(0.4) && { take: random.pick([4, 8, 16, 512, 4096]) }),
  };
}

const weights = {
  identify: 16,
  getLogPage: 18,
  setFeatures: 16,
  getFeatures: 14,
  abort: 8,
  asyncEventRequest: 7,
  keepAlive: 8,
  formatNvm: 2,
  regionCreate: 8,
  regionDelete: 6,
} as const;

export function drawAdmin(random: Prng, host: HostModel): BuiltCommand {
  const isDiscovery = host.kind !== 'io';
  if (host.kind === 'central' && random.chance(0.4)) return drawRegistration(random, host);
  const kind = random.weighted(isDiscovery ? { ...weights, formatNvm: 0, regionCreate: 0, regionDelete: 0 } : weights);
  const { opcode } = adminOpcodes[kind];
  switch (kind) {
    case 'identify':
      return identify(random, host);
    case 'getLogPage':
      return getLogPage(random, host);
    case 'setFeatures':
      return setFeatures(random);
    case 'getFeatures':
      return getFeatures(random);
    case 'abort':
      return { opcode, cdw10: random.below(3) + random.below(300) * 65_536 };
    case 'asyncEventRequest':
    case 'keepAlive':
      return { opcode };
    case 'formatNvm': {
      const ses = random.chance(0.15) ? random.below(8) : 0;
      const bad = random.chance(0.1) ? drawNumber(random) & 0x3fff : 0;
      return { opcode, nsid: random.pick([1, 2, 2, 0xffff_ffff, 3]), cdw10: ses * 512 + bad };
    }
    case 'regionCreate': {
      const size = random.chance(0.8) ? random.pick([4096, 65_536, 2 ** 20]) : drawNumber(random);
      return {
        opcode,
        cdw10: size,
        cdw11: random.chance(0.97) ? 0 : drawNumber(random),
        take: regionDescriptor.sizeBytes,
      };
    }
    case 'regionDelete': {
      const keys = [...host.regions.keys()];
      return { opcode, cdw10: keys.length > 0 && random.chance(0.7) ? random.pick(keys) : drawNumber(random) };
    }
  }
}
