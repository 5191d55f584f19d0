/** What the benchmarks of sockets send and are answered: between a drive and a host, and between two bare processes. */
import {
  c2hData,
  capsuleCmd,
  capsuleResp,
  completionEntry,
  pduFlags,
  pduTypes,
  submissionEntry,
} from '../../spec/index.ts';
import { defineStruct, u32 } from '../../spec/struct.ts';

/** First bytes of a connection to a bare peer. */
export const peerHello = defineStruct('peer hello', 12, {
  requestBytes: u32(0, 'length of a request'),
  replyBytes: u32(4, 'length of a reply'),
  isPdus: u32(8, '1: requests are command capsules, and replies those PDUs that a drive would send'),
});

/** Of the command id in a command capsule. */
export const COMMAND_ID_AT = capsuleCmd.offsetOf.entry + submissionEntry.offsetOf.commandId;
/** Of the command id, and the status, in a response capsule. */
export const RESPONSE_ID_AT = capsuleResp.offsetOf.entry + completionEntry.offsetOf.commandId;
export const RESPONSE_STATUS_AT = capsuleResp.offsetOf.entry + completionEntry.offsetOf.status;

/** Bytes that a drive answers a command with that returns `dataBytes` bytes. */
export const answerBytes = (dataBytes: number): number =>
  (dataBytes === 0 ? 0 : c2hData.sizeBytes + dataBytes) + capsuleResp.sizeBytes;

/** One reply of `sizeBytes`, and where command ids belong in it. As PDUs: C2HData, if there is room for it, and CapsuleResp. */
export function repliesTo(
  sizeBytes: number,
  isPdus: boolean,
): { readonly bytes: Uint8Array; readonly idOffsets: readonly number[] } {
  const bytes = new Uint8Array(sizeBytes);
  if (!isPdus) return { bytes, idOffsets: [] };
  const dataBytes = sizeBytes - answerBytes(0) - c2hData.sizeBytes;
  const responseAt = sizeBytes - capsuleResp.sizeBytes;
  const response = pduTypes.capsuleResp;
  capsuleResp.encode({ ...response, plen: capsuleResp.sizeBytes }, bytes, responseAt);
  if (dataBytes <= 0) return { bytes, idOffsets: [responseAt + RESPONSE_ID_AT] };
  const { type, hlen } = pduTypes.c2hData;
  c2hData.encode({ type, hlen, flags: pduFlags.last, pdo: hlen, plen: hlen + dataBytes, datal: dataBytes }, bytes);
  return { bytes, idOffsets: [c2hData.offsetOf.cccid, responseAt + RESPONSE_ID_AT] };
}
