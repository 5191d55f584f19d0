/** The byte blocks of spec/*.md, made by the encoders. Names are those of the blocks. */
import {
  adminOpcodes,
  attendEntry,
  attendHeader,
  capsuleCmd,
  capsuleResp,
  c2hData,
  completionEntry,
  connectCommand,
  connectData,
  crc32c,
  createDescriptor,
  DIGEST_BYTES,
  encodeSgl,
  FABRICS_OPCODE,
  fabricsTypes,
  h2cData,
  icReq,
  icResp,
  kvOpcodes,
  nvmOpcodes,
  packBits,
  pduFlags,
  pduTypes,
  properties,
  propertySetCommand,
  r2t,
  SGL_FLAGS,
  submissionEntry,
  type Sgl,
  ccBits,
  limits,
  ALL_TOKENS,
  ANY_SUBSYSTEM_NQN,
} from '../../spec/index.ts';

const header = (type: keyof typeof pduTypes, dataBytes = 0) => ({
  type: pduTypes[type].type,
  hlen: pduTypes[type].hlen,
  pdo: dataBytes === 0 ? 0 : pduTypes[type].hlen,
  plen: pduTypes[type].hlen + dataBytes,
});

const concatenate = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));
const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

function capsule(entry: Uint8Array, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  return concatenate(capsuleCmd.encode({ ...header('capsuleCmd', data.length), entry }), data);
}

type Entry = Parameters<typeof submissionEntry.encode>[0];
const command = (entry: Entry, sgl: Sgl, data?: Uint8Array): Uint8Array => {
  const bytes = sgl.kind === 'none' ? new Uint8Array(16) : encodeSgl(sgl);
  return capsule(submissionEntry.encode({ flags: SGL_FLAGS, ...entry, sgl: bytes }), data);
};
const inCapsule = (data: Uint8Array): Sgl => ({ kind: 'inCapsule', offset: 0, length: data.length });

function completion(commandId: number, sqHead: number, dw0: number, dw1 = 0): Uint8Array {
  const entry = completionEntry.encode({ dw0, dw1, sqHead, commandId });
  return capsuleResp.encode({ ...header('capsuleResp'), entry });
}

function connectAdmin(): Uint8Array {
  const data = connectData.encode({
    hostid: Uint8Array.from({ length: 16 }, (_, i) => i),
    cntlid: 0xffff,
    subnqn: ANY_SUBSYSTEM_NQN,
    hostnqn: 'nqn.2014-08.org.nvmexpress:uuid:01234567-89ab-cdef-0123-456789abcdef',
  });
  const entry = connectCommand.encode({
    opcode: FABRICS_OPCODE,
    flags: SGL_FLAGS,
    fctype: fabricsTypes.connect.opcode,
    sgl: encodeSgl(inCapsule(data)),
    sqsize: 31,
    kato: 5000,
  });
  return capsule(entry, data);
}

function enableController(): Uint8Array {
  const entry = propertySetCommand.encode({
    opcode: FABRICS_OPCODE,
    flags: SGL_FLAGS,
    commandId: 1,
    fctype: fabricsTypes.propertySet.opcode,
    ofst: properties.cc.offset,
    value: BigInt(packBits(ccBits, { en: 1, css: 6, iosqes: 6, iocqes: 4 })),
  });
  return capsule(entry);
}

const SEQUENCE = 7;

function kvCreate(): Uint8Array {
  const data = createDescriptor.encode({
    version: 1,
    layerCount: 1,
    kvHeadCount: 1,
    headDimK: 8,
    headDimV: 8,
    elementTypeK: 1,
    elementTypeV: 1,
    sequenceId: BigInt(SEQUENCE),
    label: 'example',
  });
  return command({ opcode: kvOpcodes.create.opcode, commandId: 1, namespaceId: 2 }, inCapsule(data), data);
}

function kvAppend(): Uint8Array {
  const data = floats(
    ...[1, 0, 0, 0, 0, 0, 0, 0],
    ...[0, 1, 0, 0, 0, 0, 0, 0],
    ...[1, 2, 3, 4, 5, 6, 7, 8],
    ...[8, 7, 6, 5, 4, 3, 2, 1],
  );
  const entry = { opcode: kvOpcodes.append.opcode, commandId: 2, namespaceId: 2, cdw10: SEQUENCE, cdw14: 2 };
  return command(entry, inCapsule(data), data);
}

const OUTPUT_BYTES = 40;

function attendExchange(): Uint8Array {
  const queryOffset = attendHeader.sizeBytes + attendEntry.sizeBytes;
  const data = concatenate(
    attendHeader.encode({ version: 1, flags: 2, entryCount: 1, queryType: 1, outputType: 1, scale: 0.5 }),
    attendEntry.encode({
      sequenceId: BigInt(SEQUENCE),
      queryHeadsPerKvHead: 1,
      queryTokenCount: 1,
      queryPosition: 1,
      tokenEnd: ALL_TOKENS,
      queryOffset,
    }),
    floats(2, 2, 0, 0, 0, 0, 0, 0),
  );
  const entry = { opcode: kvOpcodes.attendExchange.opcode, commandId: 3, namespaceId: 2, cdw10: OUTPUT_BYTES };
  return command(entry, inCapsule(data), data);
}

function attendExchangeData(): Uint8Array {
  const pdu = c2hData.encode({ ...header('c2hData', OUTPUT_BYTES), flags: 4, cccid: 3, datal: OUTPUT_BYTES });
  return concatenate(pdu, floats(...new Array<number>(8).fill(4.5), 1, 1 + Math.log(2)));
}

function regionCreate(): Uint8Array {
  const entry = { opcode: adminOpcodes.regionCreate.opcode, commandId: 5, cdw10: 1 << 20 };
  return command(entry, { kind: 'transport', length: 512 });
}

function nvmRead(): Uint8Array {
  const entry = { opcode: nvmOpcodes.read.opcode, commandId: 7, namespaceId: 1, cdw10: 128 };
  return command(entry, { kind: 'transport', length: 4096 });
}

const transfer = { cccid: 9, ttag: 17 };

function keepAliveWithDigest(): Uint8Array {
  const fields = { opcode: adminOpcodes.keepAlive.opcode, flags: SGL_FLAGS, commandId: 5 };
  const entry = submissionEntry.encode({ ...fields, sgl: encodeSgl({ kind: 'none' }) });
  const pdu = capsuleCmd.encode({ ...header('capsuleCmd'), flags: pduFlags.hdgst, plen: 76, entry });
  const digest = new Uint8Array(DIGEST_BYTES);
  new DataView(digest.buffer).setUint32(0, crc32c(pdu), true);
  return concatenate(pdu, digest);
}

export const workedExamples: Readonly<Record<string, () => Uint8Array>> = {
  icReq: () => icReq.encode(header('icReq')),
  icResp: () => icResp.encode({ ...header('icResp'), maxh2cdata: limits.h2cDataBytesMax }),
  keepAliveWithDigest,
  connectAdmin,
  enableController,
  r2tOfWrite: () => r2t.encode({ ...header('r2t'), ...transfer, r2tl: 65_536 }),
  h2cDataOfWrite: () => h2cData.encode({ ...header('h2cData', 65_536), flags: 4, ...transfer, datal: 65_536 }),
  c2hDataOfRead: () => c2hData.encode({ ...header('c2hData', 4096), flags: 4, cccid: 7, datal: 4096 }),
  keyedSgl: () => encodeSgl({ kind: 'keyed', key: 5, offset: 1 << 20, length: 65_536 }),
  regionCreate,
  nvmRead,
  kvCreate,
  kvCreateDone: () => completion(1, 2, SEQUENCE),
  kvAppend,
  kvAppendDone: () => completion(2, 3, 2),
  attendExchange,
  attendExchangeData,
  attendExchangeDone: () => completion(3, 4, 0, 2),
};
