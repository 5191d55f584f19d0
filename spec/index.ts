/** The public contract: everything a host, a tool or a second implementation needs. */
export {
  type AdminErrorBody,
  type AdminRoutes,
  adminRoutes,
  type BlockSummary,
  type ConnectionStatus,
  type DriveStatus,
  type FaultStatus,
  type Health,
  type HttpErrorCode,
  httpErrorTable,
  mediaTypes,
  type NamespaceStatus,
  type Route,
  type SequenceDetail,
  type SequenceStatus,
  type SuperblockState,
  type SuperblockStatus,
} from './admin-api.ts';
export * from './async-events.ts';
export * from './authentication.ts';
export * from './bits.ts';
export * from './command-statuses.ts';
export * from './completion-entry.ts';
export * from './conformance.ts';
export * from './crc32c.ts';
export * from './device-trace.ts';
export * from './dh-groups.ts';
export * from './dh-hmac-chap.ts';
export * from './discovery.ts';
export * from './element-type.ts';
export * from './errors.ts';
export * from './fabrics.ts';
export * from './features.ts';
export * from './host-quotas.ts';
export * from './identify.ts';
export * from './identify-kv.ts';
export * from './kv-commands.ts';
export * from './limits.ts';
export * from './log-pages.ts';
export * from './media-format/drive-superblock.ts';
export * from './media-format/kv-records.ts';
export * from './media-format/oob.ts';
export * from './media-format/staging.ts';
export * from './metrics.ts';
export * from './opcodes.ts';
export * from './pdu.ts';
export * from './quantised-row.ts';
export * from './sgl.ts';
export * from './status.ts';
export * from './struct.ts';
export * from './submission-entry.ts';
