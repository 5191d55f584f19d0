import { packBits } from '../../../spec/bits.ts';
import { elementTypes } from '../../../spec/element-type.ts';
import { NVME_VERSION } from '../../../spec/fabrics.ts';
import {
  controllerAttributeBits,
  controllerVendorArea,
  ENDURANCE_GROUP_ID,
  identifyController,
  identifyNamespace,
  lbaFormatBits,
  optionalAdminCommandBits,
  optionalNvmCommandBits,
  powerState,
  sglSupportBits,
} from '../../../spec/identify.ts';
import { kvController, kvNamespace } from '../../../spec/identify-kv.ts';
import { attendFlags, attendModes, DESCRIPTOR_VERSION, KV_CACHE_NSID } from '../../../spec/kv-commands.ts';
import { submissionEntry } from '../../../spec/submission-entry.ts';
import type { CommandModules, CommandOptions } from '../contract.ts';
import { namespaces } from '../namespace-ids.ts';

const CAPSULE_UNIT_BYTES = 16;
export const KEEP_ALIVE_UNITS = 1;
/** LPA: Get Log Page takes an offset. */
export const EXTENDED_LOG_PAGES = 1 << 2;
/** LPA: pages 00h and 12h. */
export const SUPPORTED_LOG_PAGES = 1 << 5;
const EFFECTS_LOG_PAGE = 1 << 1;
/** A volatile write cache, and Flush takes NSID FFFFFFFFh. */
const WRITE_CACHE = 0b111;
const SHARED_NAMESPACE = 1;
/** The subsystem is a storage device, not an enclosure. */
const STORAGE_DEVICE = 1;
const NAMESPACE_ATTRIBUTE_NOTICES = 1 << 8;
/** A stop flushes: hosts wait this long for a shutdown. */
const SHUTDOWN_US = 30_000_000;
const START_US = 10_000_000;
const CONCURRENT_ABORTS = 4;
/** Kelvin. The drive has no heat of its own; a composite temperature wants these thresholds all the same. */
const WARNING_TEMPERATURE = 273 + 70;
const CRITICAL_TEMPERATURE = 273 + 80;
const ELEMENT_TYPE_MASK = Object.values(elementTypes).reduce((mask, { code }) => mask | (1 << code), 0);
const GROUP_RULE = 1;

const bitMask = (values: Readonly<Record<string, number>>): number =>
  Object.values(values).reduce((mask, value) => mask | (1 << value), 0);

/** A namespace's UUID (version 8: our own making) and NGUID: the drive's with the namespace id in its last byte. */
export function namespaceUuid(driveUuid: Uint8Array, namespaceId: number): Uint8Array {
  // Not slice: that of a Buffer shares its bytes.
  const uuid = Uint8Array.from(driveUuid.subarray(0, 16));
  uuid[6] = ((uuid[6] as number) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] as number) & 0x3f) | 0x80;
  uuid[15] = (uuid[15] as number) ^ namespaceId;
  return uuid;
}

const uuidText = (uuid: Uint8Array): string =>
  Buffer.from(uuid)
    .toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

export function controllerData(controllerId: number, options: CommandOptions, modules: CommandModules): Uint8Array {
  const { identity, limits } = options;
  const kvCapacityBytes = modules.status.kvNamespace().capacityBytes ?? 0;
  return identifyController.encode({
    sn: identity.serial,
    mn: identity.model,
    fr: identity.firmware,
    mdts: limits.mdtsExponent,
    cntlid: controllerId,
    ver: NVME_VERSION,
    rtd3r: START_US,
    rtd3e: SHUTDOWN_US,
    oaes: NAMESPACE_ATTRIBUTE_NOTICES,
    ctratt: packBits(controllerAttributeBits, { hostId128: 1, enduranceGroups: 1, trafficBasedKeepAlive: 1 }),
    cntrltype: 1,
    cmic: 1 << 1,
    nvmsr: STORAGE_DEVICE,
    acl: CONCURRENT_ABORTS - 1,
    aerl: limits.asyncEventRequestCountMax - 1,
    frmw: 0b11,
    lpa: EFFECTS_LOG_PAGE | EXTENDED_LOG_PAGES | SUPPORTED_LOG_PAGES,
    elpe: limits.errorLogEntryCountMax - 1,
    wctemp: WARNING_TEMPERATURE,
    cctemp: CRITICAL_TEMPERATURE,
    kas: KEEP_ALIVE_UNITS,
    endgidmax: ENDURANCE_GROUP_ID,
    tnvmcap: modules.blocks.lbaCount * limits.lbaSizeBytes + kvCapacityBytes,
    sqes: 0x66,
    cqes: 0x44,
    maxcmd: limits.queueEntriesMax,
    nn: namespaces.length,
    mnan: namespaces.length,
    oacs: packBits(optionalAdminCommandBits, { formatNvm: 1 }),
    oncs: packBits(optionalNvmCommandBits, {
      compare: 1,
      datasetManagement: 1,
      writeZeroes: 1,
      timestamp: 1,
      verify: 1,
    }),
    vwc: WRITE_CACHE,
    sgls: packBits(sglSupportBits, { supported: 1, keyed: 1, address: 1 }),
    subnqn: identity.subsystemNqn,
    ioccsz: (submissionEntry.sizeBytes + limits.inCapsuleBytesMax) / CAPSULE_UNIT_BYTES,
    iorcsz: 1,
    msdbd: 1,
    ofcs: 1,
    psd0: powerState.encode({}),
    vs: vendorArea(options),
  });
}

function vendorArea({ identity, limits }: CommandOptions): Uint8Array {
  return controllerVendorArea.encode({
    version: 1,
    pageSizeBytes: identity.pageSizeBytes,
    build: identity.build,
    kernelSet: identity.kernelSet,
    kernelIsa: identity.kernelIsa,
    attendEntryCountMax: limits.attendEntryCountMax,
    queryRowCountMax: limits.queryRowCountMax,
    queryTokenCountMax: limits.queryTokenCountMax,
    queryHeadsPerKvHeadMax: limits.queryHeadsPerKvHeadMax,
    regionCountMax: limits.regionCountMax,
    regionBytesMax: limits.regionBytesMax,
    regionBytesTotalMax: limits.regionBytesTotalMax,
    resultSlotCountMax: limits.resultSlotCountMax,
    resultSlotBytesTotalMax: limits.resultSlotBytesTotalMax,
    keyedBlockBytesMax: limits.keyedBlockBytesMax,
    computeWorkerCount: identity.computeWorkerCount,
  });
}

export function blockNamespaceData(
  { identity, limits }: CommandOptions,
  { blocks, status }: CommandModules,
): Uint8Array {
  const { lbaCount } = blocks;
  const lbasPerPage = identity.pageSizeBytes / limits.lbaSizeBytes;
  return identifyNamespace.encode({
    nsze: lbaCount,
    ncap: lbaCount,
    nuse: status.blockUsedLbaCount(),
    nsfeat: 1 << 4,
    nmic: SHARED_NAMESPACE,
    dlfeat: 0b1001,
    nvmcap: lbaCount * limits.lbaSizeBytes,
    nsattr: status.isReadOnly() ? 1 : 0,
    endgid: ENDURANCE_GROUP_ID,
    npwg: lbasPerPage - 1,
    npwa: lbasPerPage - 1,
    nguid: namespaceUuid(identity.uuid, 1),
    lbaf0: packBits(lbaFormatBits, { lbads: Math.log2(limits.lbaSizeBytes) }),
  });
}

export function kvNamespaceData({ identity, limits }: CommandOptions, { status }: CommandModules): Uint8Array {
  return kvNamespace.encode({
    version: 1,
    state: 1,
    pageSizeBytes: identity.pageSizeBytes,
    headDimMin: limits.headDimMin,
    headDimMax: limits.headDimMax,
    layerCountMax: limits.layerCountMax,
    kvHeadCountMax: limits.kvHeadCountMax,
    elementTypeMask: ELEMENT_TYPE_MASK,
    sequenceTokensMax: limits.sequenceTokensMax,
    sequenceCountMax: limits.sequenceCountMax,
    labelBytesMax: limits.labelBytesMax,
    groupTokensMin: 1,
    groupRule: GROUP_RULE,
    uuid: uuidText(namespaceUuid(identity.uuid, KV_CACHE_NSID)),
    ...status.kvNamespace(),
  });
}

export function kvControllerData({ limits }: CommandOptions): Uint8Array {
  return kvController.encode({
    version: 1,
    descriptorVersion: DESCRIPTOR_VERSION,
    attendModeMask: bitMask(attendModes),
    attendFlagMask: Object.values(attendFlags).reduce((mask, bit) => mask | bit, 0),
    attendEntryCountMax: limits.attendEntryCountMax,
    queryRowCountMax: limits.queryRowCountMax,
    queryTokenCountMax: limits.queryTokenCountMax,
    queryHeadsPerKvHeadMax: limits.queryHeadsPerKvHeadMax,
    regionCountMax: limits.regionCountMax,
    regionBytesMax: limits.regionBytesMax,
    regionBytesTotalMax: limits.regionBytesTotalMax,
    resultSlotCountMax: limits.resultSlotCountMax,
    resultSlotBytesTotalMax: limits.resultSlotBytesTotalMax,
    transferBytesMax: limits.transferBytesMax,
    keyedBlockBytesMax: limits.keyedBlockBytesMax,
  });
}
