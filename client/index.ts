/** The attndrive SDK: everything a host program needs. See README.md beside this file. */
export type { AppendRows } from './append-rows.ts';
export { ALL_TOKENS, type ElementType, type FloatType, type QuantisedType } from '../spec/index.ts';
export { type DriveAddress, formatAddress, parseAddress } from './address.ts';
export { AdminClient, type AdminClientOptions } from './admin-client.ts';
export type { ControllerIdentity } from './association.ts';
export type { AttendEntry, AttendResult, OneShotOptions } from './attend.ts';
export type { AttendEntryShape, AttendOptions, PreparedEntry } from './attend-layout.ts';
export type { BlockDevice } from './block-device.ts';
export type { CommandFields, CommandOptions, Completion } from './command.ts';
export type { ControllerCommands, LogPageRequest } from './controller-commands.ts';
export {
  bf16ToF32,
  dequantise,
  type ElementArray,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  fromF32,
  quantise,
  type RowArray,
  rowArray,
  toF32,
} from './convert.ts';
export {
  DiscoveryClient,
  type DiscoveryEntry,
  type DiscoveryLog,
  type DiscoveryOptions,
  type Registration,
} from './discovery-client.ts';
export { type ConnectOptions, DriveClient } from './drive-client.ts';
export {
  AdminRequestError,
  DriveAuthenticationError,
  DriveClientError,
  DriveCommandError,
  DriveDigestError,
  DriveDisconnectedError,
  DriveLimitError,
  DriveProtocolError,
  DriveTimeoutError,
  DriveUnreachableError,
  RegionUnavailableError,
} from './errors.ts';
export type { KvCache, SequenceRequest } from './kv-cache.ts';
export { announcedDrives, type DriveLocation, locateDrive, type RunningDrive, runningDrives } from './locate.ts';
export { mergePartials, type PartialOutput } from './merge-partials.ts';
export type { AttendCounts, AttendPath, PreparedAttend } from './prepared-attend.ts';
export type { Region } from './region.ts';
export type {
  AppendOptions,
  ReadBackOptions,
  ReadBackResult,
  Sequence,
  SequenceInfo,
  SequenceOptions,
  SequenceShape,
} from './sequence.ts';
