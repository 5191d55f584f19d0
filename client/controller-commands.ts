import {
  adminOpcodes,
  BLOCK_NSID,
  cnsValues,
  driveStatistics,
  ENDURANCE_GROUP_ID,
  enduranceGroupLog,
  features,
  formatBits,
  getFeaturesBits,
  getLogPageBits,
  getLogPageHighBits,
  getLogPageIndexBits,
  IDENTIFY_BYTES,
  identifyBits,
  identifyCommandSetBits,
  identifyController,
  identifyNamespace,
  independentNamespace,
  KV_CACHE_CSI,
  KV_CACHE_NSID,
  kvNamespace,
  logPages,
  packBits,
  secureErase,
  type CnsName,
  type FeatureName,
  setFeaturesBits,
  smartLog,
  decodeNamespaceList,
} from '../spec/index.ts';
import type { Association, ControllerIdentity } from './association.ts';

export interface LogPageRequest {
  readonly lid: number;
  /** Multiple of 4. */
  readonly sizeBytes: number;
  readonly offset?: number | undefined;
  readonly namespaceId?: number | undefined;
  /** Command set, for the effects log. */
  readonly csi?: number | undefined;
  /** Log specific identifier: the endurance group, for its log. */
  readonly identifier?: number | undefined;
}

export interface FormatRequest {
  /** FFFFFFFFh: every namespace. */
  readonly namespaceId: number;
  /** secureErase: none (default) or userData. */
  readonly ses?: number;
  /** 0 is the only one. */
  readonly lbaf?: number;
}

/** All namespaces, or none in particular. */
const ALL_NAMESPACES = 0xffff_ffff;

/** Commands of the admin queue: what the drive is and how it fares. */
export class ControllerCommands {
  readonly #association: Association;

  constructor(modules: { association: Association }) {
    this.#association = modules.association;
  }

  async identifyController(): Promise<ControllerIdentity> {
    return identifyController.decode(await this.identify('controller'));
  }

  /** The block namespace, or another of the NVM command set. */
  async identifyNamespace(namespaceId = BLOCK_NSID) {
    return identifyNamespace.decode(await this.identify('namespace', { namespaceId }));
  }

  /** The KV-cache namespace: page size, capacity, limits. */
  async identifyKvNamespace(namespaceId = KV_CACHE_NSID) {
    return kvNamespace.decode(await this.identify('commandSetNamespace', { namespaceId, csi: KV_CACHE_CSI }));
  }

  /** What every namespace has, whatever its command set. */
  async identifyIndependentNamespace(namespaceId: number) {
    return independentNamespace.decode(await this.identify('independentNamespace', { namespaceId }));
  }

  async activeNamespaces(): Promise<number[]> {
    return decodeNamespaceList(await this.identify('activeNamespaces'));
  }

  /** The raw structure of any CNS. */
  async identify(cns: CnsName, options: { namespaceId?: number; csi?: number } = {}): Promise<Uint8Array> {
    const data = new Uint8Array(IDENTIFY_BYTES);
    const { namespaceId = 0, csi = 0 } = options;
    const cdw10 = packBits(identifyBits, { cns: cnsValues[cns].cns });
    const cdw11 = packBits(identifyCommandSetBits, { csi });
    await this.#association.executeAdmin(adminOpcodes.identify, { namespaceId, cdw10, cdw11 }, data);
    return data;
  }

  async smartLog() {
    const { lid, sizeBytes } = logPages.smart;
    return smartLog.decode(await this.logPage({ lid, sizeBytes, namespaceId: ALL_NAMESPACES }));
  }

  /** Wear, spares, what was written. The drive has one endurance group. */
  async enduranceGroupLog(groupId = ENDURANCE_GROUP_ID) {
    const { lid, sizeBytes } = logPages.enduranceGroup;
    return enduranceGroupLog.decode(await this.logPage({ lid, sizeBytes, identifier: groupId }));
  }

  /** The drive's own counters. */
  async driveStatistics() {
    const { lid, sizeBytes } = logPages.driveStatistics;
    return driveStatistics.decode(await this.logPage({ lid, sizeBytes }));
  }

  /** The raw bytes of any log page. */
  async logPage(request: LogPageRequest): Promise<Uint8Array> {
    const { lid, sizeBytes, offset = 0, namespaceId = 0, csi = 0, identifier = 0 } = request;
    if (sizeBytes < 4 || sizeBytes % 4 !== 0) throw new RangeError(`log page of ${sizeBytes} bytes; a multiple of 4`);
    const data = new Uint8Array(sizeBytes);
    const dwords = sizeBytes / 4 - 1;
    const fields = {
      namespaceId,
      cdw10: packBits(getLogPageBits, { lid, numdl: dwords & 0xffff }),
      cdw11: packBits(getLogPageHighBits, { numdu: dwords >>> 16, lsi: identifier }),
      cdw12: offset % 2 ** 32,
      cdw13: Math.floor(offset / 2 ** 32),
      cdw14: packBits(getLogPageIndexBits, { csi }),
    };
    await this.#association.executeAdmin(adminOpcodes.getLogPage, fields, data);
    return data;
  }

  /** Current value of a feature: DW0 of the completion. */
  async getFeature(name: FeatureName): Promise<number> {
    const cdw10 = packBits(getFeaturesBits, { fid: features[name].fid });
    return (await this.#association.executeAdmin(adminOpcodes.getFeatures, { cdw10 })).dw0;
  }

  async setFeature(name: FeatureName, value: number): Promise<void> {
    const cdw10 = packBits(setFeaturesBits, { fid: features[name].fid });
    await this.#association.executeAdmin(adminOpcodes.setFeatures, { cdw10, cdw11: value });
  }

  /** Empties a namespace: what it held is lost. Resolves once that is durable, and the bytes are gone if `ses` is 1. */
  async format({ namespaceId, ses = secureErase.none, lbaf = 0 }: FormatRequest): Promise<void> {
    const cdw10 = packBits(formatBits, { ses, lbafl: lbaf & 0xf, lbafu: lbaf >>> 4 });
    await this.#association.executeAdmin(adminOpcodes.formatNvm, { namespaceId, cdw10 });
  }
}
