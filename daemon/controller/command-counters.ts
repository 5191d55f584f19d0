import { errorTable, type ErrorCode } from '../../spec/errors.ts';
import { deviceLatencyBucketsSeconds, latencyBucketsSeconds } from '../../spec/metrics.ts';
import {
  adminOpcodes,
  discoveryOpcodes,
  fabricsTypes,
  kvOpcodes,
  nvmOpcodes,
  type OpcodeRow,
} from '../../spec/opcodes.ts';

export type CommandQueue = 'admin' | 'nvm' | 'kv' | 'fabrics' | 'discovery';

/** Data of commands that moved over sockets, in bytes, by path. What moved through regions is in FrontCounters. */
export interface HostByteCounters {
  inCapsule: number;
  inPdu: number;
  outPdu: number;
}

export interface CommandSample {
  readonly queue: CommandQueue;
  readonly opcode: string;
  /** Error code of the table, or `success`. */
  readonly status: string;
  readonly count: number;
}

export interface LatencySample {
  readonly queue: CommandQueue;
  readonly opcode: string;
  /** Per bucket of the histogram's table, not cumulative, and one more above the last. */
  readonly counts: readonly number[];
  readonly sumSeconds: number;
}

interface Row {
  readonly queue: CommandQueue;
  readonly name: string;
  readonly statuses: Float64Array;
  readonly wall: LatencyCounts;
  readonly device: LatencyCounts;
}

interface LatencyCounts {
  readonly boundsNs: readonly number[];
  readonly buckets: Float64Array;
  sumNs: number;
}

const queues: readonly CommandQueue[] = ['admin', 'nvm', 'kv', 'fabrics', 'discovery'];
const tables: Readonly<Record<CommandQueue, Readonly<Record<string, OpcodeRow>>>> = {
  admin: adminOpcodes,
  nvm: nvmOpcodes,
  kv: kvOpcodes,
  fabrics: fabricsTypes,
  discovery: discoveryOpcodes,
};
const statusNames = ['success', ...(Object.keys(errorTable) as ErrorCode[])];
const statusIndex = new Map(statusNames.map((name, index) => [name, index]));
const wallBoundsNs = latencyBucketsSeconds.map((seconds) => seconds * 1e9);
const deviceBoundsNs = deviceLatencyBucketsSeconds.map((seconds) => seconds * 1e9);
export const UNKNOWN_OPCODE = 256;
const ROWS_PER_QUEUE = UNKNOWN_OPCODE + 1;

/** Among all of them. Asked for with every command, which a search by name would be a good part of. */
function placeOf(queue: CommandQueue): number {
  switch (queue) {
    case 'admin':
      return 0;
    case 'nvm':
      return 1;
    case 'kv':
      return 2;
    case 'fabrics':
      return 3;
    case 'discovery':
      return 4;
  }
}

/** Completions by opcode and status, and latencies by opcode. Indices are looked up once per command. */
export class CommandCounters {
  readonly hostBytes: HostByteCounters = { inCapsule: 0, inPdu: 0, outPdu: 0 };
  readonly #rows: (Row | undefined)[] = Array.from({ length: queues.length * ROWS_PER_QUEUE });
  failedCount = 0;

  constructor() {
    for (const queue of queues) {
      const start = placeOf(queue) * ROWS_PER_QUEUE;
      const add = (opcode: number, name: string): void => {
        const statuses = new Float64Array(statusNames.length);
        const latencies = { wall: latencyCounts(wallBoundsNs), device: latencyCounts(deviceBoundsNs) };
        this.#rows[start + opcode] = { queue, name, statuses, ...latencies };
      };
      for (const row of Object.values(tables[queue])) add(row.opcode, row.name);
      add(UNKNOWN_OPCODE, 'unknown');
    }
  }

  indexOf(queue: CommandQueue, opcode: number): number {
    const start = placeOf(queue) * ROWS_PER_QUEUE;
    return this.#rows[start + opcode] === undefined ? start + UNKNOWN_OPCODE : start + opcode;
  }

  /** `code` undefined: success. `commandCount` of them that are alike. */
  count(index: number, code: ErrorCode | undefined, durationNs: number, commandCount = 1): void {
    const row = this.#rows[index] as Row;
    const status = code === undefined ? 0 : (statusIndex.get(code) as number);
    row.statuses[status] = (row.statuses[status] as number) + commandCount;
    if (status !== 0) this.failedCount += commandCount;
    countLatency(row.wall, durationNs, commandCount);
  }

  /** Device time of a command. */
  countDevice(index: number, latencyNs: number): void {
    countLatency((this.#rows[index] as Row).device, latencyNs, 1);
  }

  commands(): CommandSample[] {
    const samples: CommandSample[] = [];
    for (const row of this.#rows) {
      row?.statuses.forEach((count, index) => {
        if (count > 0)
          samples.push({ queue: row.queue, opcode: row.name, status: statusNames[index] as string, count });
      });
    }
    return samples;
  }

  /** From arrival to completion on this machine. */
  latencies(): LatencySample[] {
    return this.#samples('wall');
  }

  deviceLatencies(): LatencySample[] {
    return this.#samples('device');
  }

  #samples(time: 'wall' | 'device'): LatencySample[] {
    const samples: LatencySample[] = [];
    for (const row of this.#rows) {
      if (row === undefined || !row[time].buckets.some((count) => count > 0)) continue;
      const { buckets, sumNs } = row[time];
      samples.push({ queue: row.queue, opcode: row.name, counts: [...buckets], sumSeconds: sumNs / 1e9 });
    }
    return samples;
  }
}

const latencyCounts = (boundsNs: readonly number[]): LatencyCounts => ({
  boundsNs,
  buckets: new Float64Array(boundsNs.length + 1),
  sumNs: 0,
});

function countLatency(counts: LatencyCounts, durationNs: number, commandCount: number): void {
  const { boundsNs, buckets } = counts;
  let bucket = 0;
  while (bucket < boundsNs.length && durationNs > (boundsNs[bucket] as number)) bucket++;
  buckets[bucket] = (buckets[bucket] as number) + commandCount;
  counts.sumNs += durationNs * commandCount;
}
