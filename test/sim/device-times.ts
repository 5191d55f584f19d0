/** Device time of one run of a drive in virtual time, recorded, and what must be true of it. */
import assert from 'node:assert/strict';
import { deviceTraceHeader, labelText } from '../../spec/device-trace.ts';
import { kvOpcodes, nvmOpcodes, type OpcodeRow } from '../../spec/opcodes.ts';
import type { Clock } from '../../daemon/base/clock.ts';
import type { Geometry } from '../../daemon/nand/geometry.ts';
import { profileOf, profiles } from '../../daemon/profiles/profiles.ts';
import { Device } from '../../daemon/timing/device.ts';
import { readTraceHeader, TraceReplay } from '../../daemon/timing/replay.ts';
import { TraceWriter } from '../../daemon/timing/trace-writer.ts';
import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';

export const timedProfileNames = profiles.filter(({ timing }) => timing !== undefined).map(({ name }) => name);

export class RecordedDeviceTime {
  readonly device: Device;
  readonly #writer: TraceWriter;
  readonly #pieces: Uint8Array[] = [];

  constructor(profile: string, shape: Geometry, clock: Clock) {
    const description = { shape, profile, serial: 'simulated', startedAtMs: clock.wallMs() };
    this.#writer = new TraceWriter(description, (bytes) => this.#pieces.push(bytes.slice()));
    const { timing } = profileOf(profile);
    this.device = new Device({ timing: timing!, shape }, { clock, observer: this.#writer });
  }

  /** However the run has ended: computed again, every job takes as long as it did. Returns how many there were. */
  check(): number {
    this.#writer.flush();
    const trace = Buffer.concat(this.#pieces);
    let jobCount = 0;
    const replay = new TraceReplay(
      readTraceHeader(trace),
      undefined,
      ({ label, arrivalNs, recordedLatencyNs, latencyNs }) => {
        jobCount++;
        assert.equal(latencyNs, recordedLatencyNs, `${labelText(label)} at ${arrivalNs} ns, replayed`);
      },
    );
    replay.push(trace.subarray(deviceTraceHeader.sizeBytes));
    return jobCount;
  }
}

const rowsOf = (rows: Readonly<Record<string, OpcodeRow>>): ReadonlySet<number> =>
  new Set(Object.values(rows).flatMap(({ opcode, deviceLatency }) => (deviceLatency === true ? [opcode] : [])));
const timedOpcodes = new Map([
  [BLOCK_NSID, rowsOf(nvmOpcodes)],
  [KV_CACHE_NSID, rowsOf(kvOpcodes)],
]);

/** DW1 of this command's completion is its device latency. */
export const saysLatency = (nsid: number | undefined, opcode: number): boolean =>
  timedOpcodes.get(nsid ?? 0)?.has(opcode) === true;
