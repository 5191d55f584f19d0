/** spec/admin-commands.md and spec/memory-regions.md as rules. */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { asyncEventBits, asyncEvents } from '../../../spec/async-events.ts';
import { strayBits, unpackBits } from '../../../spec/bits.ts';
import { errorTable } from '../../../spec/errors.ts';
import {
  type FeatureName,
  featureOf,
  features,
  getFeaturesBits,
  hostBehaviorData,
  setFeaturesBits,
} from '../../../spec/features.ts';
import {
  cnsValues,
  IDENTIFY_BYTES,
  identifyBits,
  identifyCommandSetBits,
  identifyController,
} from '../../../spec/identify.ts';
import {
  BLOCK_NSID,
  DESCRIPTOR_VERSION,
  KV_CACHE_CSI,
  KV_CACHE_NSID,
  regionDescriptor,
} from '../../../spec/kv-commands.ts';
import { limits } from '../../../spec/limits.ts';
import {
  discoveryLogPages,
  errorInformationEntry,
  getLogPageBits,
  getLogPageHighBits,
  getLogPageIndexBits,
  logPages,
} from '../../../spec/log-pages.ts';
import { adminOpcodes, formatBits } from '../../../spec/opcodes.ts';
import { ALL, BROADCAST_NSID, type CommandRule, type RuleContext, type RuleTable } from './rules.ts';
import { TRANSFER_BYTES_MAX } from './submission.ts';

const SGL_DATA_BLOCK = (errorTable.sglDataBlock.sct << 8) | errorTable.sglDataBlock.sc;

const isNamespace = (nsid: number): boolean => nsid === BLOCK_NSID || nsid === KV_CACHE_NSID;
const isAllOrNone = (nsid: number): boolean => nsid === 0 || nsid === BROADCAST_NSID;

/** What the drive gave, wherever it went. */
function answerOf({ submission, readRegion }: RuleContext, data: Uint8Array): Uint8Array {
  const { place, lengthBytes } = submission;
  return place.kind === 'keyed' ? readRegion(place.key, place.offset, lengthBytes) : data;
}

const csiOf = (nsid: number): number => (nsid === KV_CACHE_NSID ? KV_CACHE_CSI : 0);

/** Faults of Identify by what it asks for. */
function checkCns({ submission, verdict }: RuleContext, cns: number): void {
  const { namespaceId: nsid, cdw11 } = submission.entry;
  const { csi, cnssid } = unpackBits(identifyCommandSetBits, cdw11);
  if (cnssid !== 0 && cns !== cnsValues.enduranceGroups.cns) verdict.fault('invalidField');
  switch (cns) {
    case cnsValues.namespace.cns:
      if (!isNamespace(nsid) && nsid !== BROADCAST_NSID) verdict.fault('invalidNamespace');
      if (nsid === KV_CACHE_NSID) verdict.fault('invalidCommandSet');
      return;
    case cnsValues.activeNamespaces.cns:
      if (nsid >= BROADCAST_NSID - 1) verdict.fault('invalidNamespace');
      return;
    case cnsValues.namespaceDescriptors.cns:
    case cnsValues.independentNamespace.cns:
      if (!isNamespace(nsid)) verdict.fault('invalidNamespace');
      return;
    case cnsValues.commandSetNamespace.cns:
      if (!isNamespace(nsid)) verdict.fault('invalidNamespace');
      else if (csi !== csiOf(nsid)) verdict.fault('invalidCommandSet');
      return;
    case cnsValues.commandSetController.cns:
      if (csi !== 0 && csi !== KV_CACHE_CSI) verdict.fault('invalidCommandSet');
      return;
    case cnsValues.commandSetActiveNamespaces.cns:
      if (csi !== 0 && csi !== KV_CACHE_CSI) verdict.fault('invalidCommandSet');
      if (nsid >= BROADCAST_NSID - 1) verdict.fault('invalidNamespace');
      return;
    case cnsValues.controller.cns:
    case cnsValues.enduranceGroups.cns:
    case cnsValues.commandSets.cns:
      return;
    default:
      verdict.fault('invalidField');
  }
}

const identify: CommandRule = {
  uses: { cdw10: 0xffff_00ff, cdw11: 0xff00_ffff, cdw14: 0x7f },
  judge(context) {
    const { submission, verdict, host } = context;
    const { cdw10, cdw11, cdw14, namespaceId } = submission.entry;
    const { cns, cntid } = unpackBits(identifyBits, cdw10);
    if (cntid !== 0) verdict.fault('invalidField');
    if (submission.lengthBytes !== IDENTIFY_BYTES) verdict.fault('sglDataLength');
    if (host.kind !== 'io') {
      if (cns !== cnsValues.controller.cns) verdict.fault('invalidField');
      // A discovery controller has neither: what names them is not looked at.
      if (cdw11 !== 0 || cdw14 !== 0) verdict.fault('invalidField');
    } else {
      if (cdw14 !== 0) verdict.fault('invalidField');
      checkCns(context, cns);
    }
    verdict.onSuccess = ({ data }) => {
      const bytes = answerOf(context, data);
      assert.equal(bytes.length, IDENTIFY_BYTES, 'bytes of Identify');
      if (cns === cnsValues.controller.cns) {
        assert.equal(identifyController.decode(bytes).cntlid, host.controllerId, 'CNTLID is that of Connect');
      }
      if (cns === cnsValues.activeNamespaces.cns) {
        const wanted = [BLOCK_NSID, KV_CACHE_NSID].filter((nsid) => nsid > namespaceId);
        const view = new DataView(bytes.buffer, bytes.byteOffset);
        for (let i = 0; i < 3; i++) assert.equal(view.getUint32(4 * i, true), wanted[i] ?? 0, 'namespace list');
      }
    };
  },
};

const getLogPage: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL, cdw12: ALL, cdw13: ALL, cdw14: 0xff80_007f },
  judge(context) {
    const { submission, verdict, host } = context;
    const { entry, lengthBytes } = submission;
    const { lid, lsp, numdl } = unpackBits(getLogPageBits, entry.cdw10);
    const { numdu, lsi } = unpackBits(getLogPageHighBits, entry.cdw11);
    const { uuidIndex, ot, csi } = unpackBits(getLogPageIndexBits, entry.cdw14);
    const pages: readonly { lid: number; sizeBytes: number }[] = Object.values(
      host.kind === 'io' ? logPages : discoveryLogPages,
    );
    const page = pages.find((one) => one.lid === lid);
    if (page === undefined) verdict.fault('invalidLogPage');
    const isEndurance = lid === logPages.enduranceGroup.lid && host.kind === 'io';
    if (lsp !== 0 || lsi !== (isEndurance ? 1 : 0) || uuidIndex !== 0 || ot !== 0) verdict.fault('invalidField');
    if (csi !== 0 && lid !== logPages.effects.lid) verdict.fault('invalidCommandSet');
    if (!isAllOrNone(entry.namespaceId)) verdict.fault('invalidNamespace');
    const wanted = 4 * (numdu * 65_536 + numdl + 1);
    if (wanted > TRANSFER_BYTES_MAX) verdict.fault('invalidField');
    if (lengthBytes !== wanted) verdict.fault('sglDataLength');
    const offset = entry.cdw13 * 2 ** 32 + entry.cdw12;
    if (offset % 4 !== 0) verdict.fault('invalidField');
    // The discovery log is as long as there are entries.
    if (page === discoveryLogPages.discovery) verdict.excuseAlways('invalidField');
    else if (page !== undefined && offset > page.sizeBytes) verdict.fault('invalidField');
    const errorsBefore = host.errorCount;
    verdict.onSuccess = ({ data }) => {
      const bytes = answerOf(context, data);
      assert.equal(bytes.length, wanted, 'bytes of a log page');
      // Others may have failed meanwhile.
      if (host.errorCount !== errorsBefore) return;
      if (lid === logPages.error.lid && offset === 0 && wanted >= errorInformationEntry.sizeBytes)
        checkErrors(context, bytes);
    };
  },
};

/** The newest entry of the error log is the host's last command that failed. */
function checkErrors({ host }: RuleContext, bytes: Uint8Array): void {
  const { errorCount, sqid, cmdid, statusField, opcode } = errorInformationEntry.decode(bytes);
  const { lastError } = host;
  assert.equal(errorCount, host.errorCount, 'number of the newest error');
  if (lastError === undefined) return;
  const { queueId, commandId, status } = lastError;
  assert.deepEqual([sqid, cmdid, opcode], [queueId, commandId, lastError.opcode], 'command of the newest error');
  assert.equal((statusField >>> 1) & 0x7ff, status, 'status of the newest error');
}

const DISCOVERY_FEATURES: readonly FeatureName[] = ['asyncEventConfiguration', 'keepAliveTimer', 'hostIdentifier'];
const EVENTS = { io: 0x11f, discovery: 0x8000_0000, central: 0x8000_0000 } as const;

function featureIn({ host, verdict }: RuleContext, fid: number): FeatureName | undefined {
  const name = featureOf(fid);
  if (name !== undefined && (host.kind === 'io' || DISCOVERY_FEATURES.includes(name))) return name;
  verdict.fault('invalidField');
  return undefined;
}

/** Whether a value may be set, besides its reserved bits. */
function checkValue(
  { host, verdict, queueCount, data }: RuleContext & { queueCount: number },
  name: FeatureName,
  value: number,
): void {
  switch (name) {
    case 'powerManagement':
      if ((value & 0x1f) !== 0) verdict.fault('invalidField');
      return;
    case 'asyncEventConfiguration':
      if ((value & ~EVENTS[host.kind]) !== 0) verdict.fault('invalidField');
      return;
    case 'commandSetProfile':
      if (value !== 0) verdict.fault('commandSetRejected');
      return;
    case 'temperatureThreshold': {
      const sensor = (value >>> 16) & 0xf;
      if ((sensor !== 0 && sensor !== 0xf) || ((value >>> 20) & 3) > 1) verdict.fault('invalidField');
      return;
    }
    case 'numberOfQueues':
      if (queueCount > 0) verdict.fault('commandSequence');
      if ((value & 0xffff) === 0xffff || value >>> 16 === 0xffff) verdict.fault('invalidField');
      return;
    case 'keepAliveTimer':
      if (value > limits.keepAliveTimeoutMsMax) verdict.fault('keepAliveTimeout');
      return;
    case 'hostBehavior': {
      if (data === undefined || data.length !== hostBehaviorData.sizeBytes) return;
      if (data[0]! > 1 || data.subarray(1).some((byte) => byte !== 0)) verdict.fault('invalidField');
      return;
    }
    case 'arbitration':
    case 'errorRecovery':
    case 'volatileWriteCache':
    case 'writeAtomicity':
    case 'timestamp':
    case 'hostIdentifier':
  }
}

/** What Get Features answers as it was set. */
const isKept = (name: FeatureName): boolean =>
  [
    'arbitration',
    'powerManagement',
    'errorRecovery',
    'volatileWriteCache',
    'writeAtomicity',
    'asyncEventConfiguration',
  ].includes(name);

const setFeatures: CommandRule = {
  uses: { cdw10: 0x8000_00ff, cdw11: ALL },
  judge(context) {
    const { submission, verdict, host } = context;
    const { cdw10, cdw11, namespaceId } = submission.entry;
    const { fid, save } = unpackBits(setFeaturesBits, cdw10);
    verdict.excuse('writeFault');
    verdict.touch('features');
    verdict.isWriter = true;
    const name = featureIn(context, fid);
    if (save === 1) verdict.fault('featureNotSaveable');
    if (!isAllOrNone(namespaceId)) verdict.fault('featureNotNamespaceSpecific');
    if (name === undefined) return;
    const { bits, dataBytes } = features[name];
    if (name === 'hostIdentifier') verdict.fault('commandSequence');
    if (strayBits(bits, cdw11) !== 0) verdict.fault('invalidField');
    if (submission.lengthBytes !== dataBytes) verdict.fault('sglDataLength');
    checkValue({ ...context, queueCount: host.queueCount }, name, cdw11);
    verdict.onSuccess = () => {
      if (isKept(name)) host.features.set(fid, cdw11);
    };
    verdict.onUncertain = () => host.features.delete(fid);
    verdict.onFailure = (code) => {
      if (code === 'writeFault') verdict.onUncertain();
    };
  },
};

const getFeatures: CommandRule = {
  uses: { cdw10: 0x7ff, cdw11: ALL },
  judge(context) {
    const { submission, verdict, host } = context;
    const { cdw10, cdw11 } = submission.entry;
    const { fid, select } = unpackBits(getFeaturesBits, cdw10);
    const name = featureIn(context, fid);
    verdict.touch('features');
    if (select > 3) verdict.fault('invalidField');
    if (name === undefined) return;
    const selector = name === 'temperatureThreshold' ? 0x3f_0000 : name === 'hostIdentifier' ? 1 : 0;
    if ((cdw11 & ~selector) !== 0) verdict.fault('invalidField');
    if (name === 'hostIdentifier' && cdw11 !== 1 && select !== 3) verdict.fault('invalidField');
    if (name === 'temperatureThreshold' && select !== 3) {
      const sensor = (cdw11 >>> 16) & 0xf;
      if (sensor !== 0 || ((cdw11 >>> 20) & 3) > 1) verdict.fault('invalidField');
    }
    verdict.onSuccess = ({ dw0 }) => {
      const value = host.features.get(fid);
      if (select === 0 && value !== undefined) assert.equal(dw0, value, `${name} is as it was set`);
    };
  },
};

const abort: CommandRule = {
  uses: { cdw10: ALL },
  wantsNoNamespace: true,
  judge({ submission, verdict }) {
    if (submission.lengthBytes > 0) verdict.fault('sglDataLength');
    verdict.onSuccess = ({ dw0 }) => assert.ok(dw0 <= 1, 'DW0 of Abort: 0 aborted, 1 not');
  },
};

const keepAlive: CommandRule = {
  uses: {},
  wantsNoNamespace: true,
  judge({ submission, verdict }) {
    if (submission.lengthBytes > 0) verdict.fault('sglDataLength');
  },
};

const asyncEventRequest: CommandRule = {
  uses: {},
  wantsNoNamespace: true,
  judge({ submission, verdict, host }) {
    if (submission.lengthBytes > 0) verdict.fault('sglDataLength');
    if (host.requestCount >= limits.asyncEventRequestCountMax) verdict.fault('asyncEventLimit');
    if (verdict.faults.size > 0) return;
    verdict.isParked = true;
    verdict.excuseAlways('aborted');
    host.requestCount++;
    const over = (): void => void host.requestCount--;
    verdict.onFailure = over;
    verdict.onSuccess = ({ dw0 }) => {
      over();
      const { type, info, lid } = unpackBits(asyncEventBits, dw0);
      const isKnown = Object.values(asyncEvents).some(
        (one) => one.type === type && one.info === info && one.lid === lid,
      );
      assert.ok(isKnown, `event ${type}, ${info}, page ${lid}`);
    };
  },
};

const formatNvm: CommandRule = {
  uses: { cdw10: 0x3fff },
  judge({ submission, verdict, drive, host }) {
    const { cdw10, namespaceId } = submission.entry;
    const { ses, ...format } = unpackBits(formatBits, cdw10);
    verdict.isWriter = true;
    verdict.touch('format');
    if (submission.lengthBytes > 0) verdict.fault('sglDataLength');
    if (Object.values(format).some((value) => value !== 0)) verdict.fault('invalidFormat');
    if (ses > 1) verdict.fault('invalidField');
    if (!isNamespace(namespaceId) && namespaceId !== BROADCAST_NSID) verdict.fault('invalidNamespace');
    const isOf = (nsid: number): boolean => namespaceId === nsid || namespaceId === BROADCAST_NSID;
    if (host.isConfined && isOf(KV_CACHE_NSID)) verdict.fault('operationDenied');
    verdict.excuse('writeFault', 'namespaceWriteProtected');
    verdict.onUncertain = () => {
      if (isOf(BLOCK_NSID)) drive.loseBlocks(0, drive.traits.lbaCount);
      if (isOf(KV_CACHE_NSID)) for (const id of drive.sequences.keys()) drive.loseSequence(id);
    };
    verdict.onFailure = (code) => {
      if (code === 'writeFault' || code === 'namespaceWriteProtected') verdict.onUncertain();
    };
    verdict.onSuccess = () => {
      if (isOf(BLOCK_NSID)) drive.clearBlocks();
      if (isOf(KV_CACHE_NSID)) drive.clearSequences();
    };
  },
};

const regionCreate: CommandRule = {
  uses: { cdw10: ALL, cdw11: ALL },
  wantsNoNamespace: true,
  judge(context) {
    const { submission, verdict, host } = context;
    const sizeBytes = submission.entry.cdw11 * 2 ** 32 + submission.entry.cdw10;
    if (submission.lengthBytes !== regionDescriptor.sizeBytes) verdict.fault('sglDataLength');
    const total = [...host.regions.values()].reduce((sum, region) => sum + region.sizeBytes, sizeBytes);
    const isIn =
      sizeBytes >= 1 &&
      sizeBytes <= limits.regionBytesMax &&
      total <= limits.regionBytesTotalMax &&
      host.regions.size < limits.regionCountMax;
    if (!isIn) verdict.fault('regionLimit');
    // tmpfs may be full.
    verdict.excuse('hostQuota');
    if (sizeBytes > 2 ** 24) verdict.excuseAlways('regionLimit');
    verdict.onSuccess = ({ data }) => {
      const descriptor = regionDescriptor.decode(answerOf(context, data));
      assert.equal(descriptor.version, DESCRIPTOR_VERSION);
      assert.equal(descriptor.sizeBytes, sizeBytes, 'size of a region');
      assert.ok(descriptor.key !== 0 && !host.regions.has(descriptor.key), `key ${descriptor.key} is new`);
      const { key, path } = descriptor;
      host.regions.set(key, { key, sizeBytes, path, fd: openSync(path, 'r+') });
    };
  },
};

const regionDelete: CommandRule = {
  uses: { cdw10: ALL },
  wantsNoNamespace: true,
  judge({ submission, verdict, host }) {
    const key = submission.entry.cdw10;
    const region = host.regions.get(key);
    verdict.touch(`region ${key}`);
    verdict.isWriter = true;
    if (submission.lengthBytes > 0) verdict.fault('sglDataLength');
    if (region === undefined) verdict.fault('sglDataBlock');
    verdict.onSuccess = () => {
      if (host.regions.delete(key)) closeSync(region!.fd);
    };
    // Of two that delete it one may find it gone.
    verdict.onUncertain = (completion) => {
      if (completion !== undefined && [0, SGL_DATA_BLOCK].includes(completion.status)) verdict.onSuccess(completion);
    };
  },
};

const common: RuleTable = {
  [adminOpcodes.getLogPage.opcode]: getLogPage,
  [adminOpcodes.identify.opcode]: identify,
  [adminOpcodes.abort.opcode]: abort,
  [adminOpcodes.setFeatures.opcode]: setFeatures,
  [adminOpcodes.getFeatures.opcode]: getFeatures,
  [adminOpcodes.asyncEventRequest.opcode]: asyncEventRequest,
  [adminOpcodes.keepAlive.opcode]: keepAlive,
};

export const adminRules: RuleTable = {
  ...common,
  [adminOpcodes.formatNvm.opcode]: formatNvm,
  [adminOpcodes.regionCreate.opcode]: regionCreate,
  [adminOpcodes.regionDelete.opcode]: regionDelete,
};

/** Those that discovery controllers have too. */
export const commonRules = common;
