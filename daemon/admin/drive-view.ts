import type {
  BlockSummary,
  ConnectionStatus,
  DriveStatus,
  FaultRequest,
  FaultStatus,
  Health,
  NamespaceStatus,
  ScrubStatus,
  SequenceDetail,
  SequenceStatus,
  SuperblockState,
  SuperblockStatus,
} from '../../spec/admin-api.ts';
import type { MetricsSnapshot } from '../../spec/metrics.ts';

/**
 * All that the control plane knows of a drive: snapshots, taken when it asks, and a few actions. The composition root
 * implements it; nothing in this room holds a live object of another room.
 *
 * Every function may be called in every state of the drive. Those that need a ready drive throw DriveError
 * namespaceNotReady until it is; `health` and `statistics` never throw.
 */
export interface DriveView {
  health(): Health;
  drive(): DriveStatus;
  namespaces(): readonly NamespaceStatus[];
  /** Ids above `after`, ascending, at most `countMax`. */
  sequences(after: bigint, countMax: number): readonly SequenceStatus[];
  /** DriveError unknownSequence. */
  sequence(id: bigint): SequenceDetail;
  connections(): readonly ConnectionStatus[];
  blockSummary(): BlockSummary;
  /** Superblocks above `after` (-1: from the start), ascending, at most `countMax`, in `state` if one is given. */
  superblocks(after: number, countMax: number, state: SuperblockState | undefined): readonly SuperblockStatus[];
  faults(): readonly FaultStatus[];
  /** DriveError faultsNotAllowed, invalidField, unknownSequence. */
  addFault(request: FaultRequest): Promise<FaultStatus>;
  /** Resolves when its bit errors are taken back. DriveError faultsNotAllowed, unknownFault. */
  removeFault(id: number): Promise<void>;
  scrub(): ScrubStatus;
  /** Begins a pass over all pages in use. */
  startScrub(): void;
  statistics(): MetricsSnapshot;
  /** Resolves when everything that had completed is durable. */
  flush(): Promise<void>;
  /** DriveError unknownSequence. */
  reclaim(id: bigint): Promise<void>;
}
