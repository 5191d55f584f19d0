/**
 * ATTN over twice as much KV as the drive's cache holds, layer after layer as a decoder asks, with direct I/O: against the time
 * that it takes at least, which is to read what cannot be in the cache from the disk, and to attend to the rest from memory.
 *
 * The disk's rate is the best of sequential direct reads of the same file, by blocks of 512 KiB to 4 MiB and several at a time.
 * That of memory is the kernels' over the same pages in the page cache. What a drive that maps its file makes of it, whose pages
 * are all in the page cache, is printed beside.
 */
import { closeSync, constants, openSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { AdminClient, DriveClient, locateDrive, type PreparedAttend } from '../../client/index.ts';
import { createSlab, DirectIo } from '../../daemon/kernels/native/direct-io.ts';
import { nativeUnavailable } from '../../daemon/kernels/native/native-kernels.ts';
import { Progress } from '../cli/output.ts';
import { median, percentText } from '../cli/quantity.ts';
import { startDriveOver, type TemporaryDrive } from '../cli/temporary-drive.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { type Contestant, sampleRate } from './contest.ts';
import { prepareQuery } from './drive-layers.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, layerBytes, shapeOf } from './shapes.ts';
import { StoredLayers } from './stored-layers.ts';
import { floatSets } from './team-work.ts';
import { ThreadTeam } from './thread-team.ts';

const MIB = 2 ** 20;
const KV_BYTES = 1024 * MIB;
const QUICK_KV_BYTES = 128 * MIB;
/** What one timed run walks or reads, about. */
const SAMPLE_BYTES = 128 * MIB;
/** Rounds over all layers until what is kept changes no more. */
const WARM_CYCLES = 10;

/** Ways to read one after another: the best counts. */
const probes = [
  { blockBytes: MIB / 2, depth: 16 },
  { blockBytes: MIB, depth: 8 },
  { blockBytes: 4 * MIB, depth: 4 },
] as const;

export const coldBench: Bench = {
  name: 'cold',
  summary: 'ATTN over twice the cache with direct I/O, against disk and memory',
  async run(options, output) {
    const missing = nativeUnavailable();
    if (missing !== undefined) {
      new Progress().done(`cold: skipped, direct I/O needs the native addon, which is not built (${missing})`);
      return;
    }
    for (const tokenCount of options.quick ? [4096] : [4096, 32_768]) {
      await measureShape(shapeOf('32/8', tokenCount, options.quick ? QUICK_KV_BYTES : KV_BYTES), options, output);
    }
  },
};

async function measureShape(shape: BenchShape, options: BenchOptions, output: BenchOutput): Promise<void> {
  const progress = new Progress();
  progress.update(`${shape.name}: writing …`);
  const layers = await StoredLayers.open(shape, { pageSizeBytes: 16_384, storages: ['prefill'] });
  const [set] = floatSets();
  let team: ThreadTeam | undefined;
  try {
    const threadCount = Math.max(1, options.workers ?? availableParallelism());
    team = await ThreadTeam.open(layers.resources, {
      sets: [set!],
      threadCountMax: threadCount,
      touched: layers.range,
    });
    const folder = await layers.handOver();
    const kernel: Contestant = {
      name: 'kernel',
      task: { kind: 'attend', set: set! },
      threadCount,
      items: layers.jobs('prefill'),
      itemBytes: layers.jobBytes('prefill'),
    };
    await compareDrives({ shape, folder, team, kernel, threadCount }, options, output, progress);
  } finally {
    progress.clear();
    await team?.close();
    await layers.close();
  }
}

interface Ground {
  readonly shape: BenchShape;
  readonly folder: string;
  readonly team: ThreadTeam;
  readonly kernel: Contestant;
  readonly threadCount: number;
}

/** Of one round. Rates in GB/s. */
interface Sample {
  readonly disk: readonly number[];
  readonly kernel: number;
  readonly attend: number;
}

async function compareDrives(
  ground: Ground,
  options: BenchOptions,
  output: BenchOutput,
  progress: Progress,
): Promise<void> {
  const { shape, folder, team, kernel, threadCount } = ground;
  const kvBytes = layerBytes(shape) * shape.layerCount;
  const cacheBytes = Math.floor(kvBytes / 2 / MIB) * MIB;
  const io = ['--io', 'direct', '--cache-size', String(cacheBytes)];
  const samples: Sample[] = [];
  const hitShare = await withDrive(ground, io, async (walker, drive) => {
    for (let cycle = 0; cycle < WARM_CYCLES; cycle++) {
      progress.update(`${shape.name}: cycle ${cycle} of ${WARM_CYCLES}`);
      await walker.walk(shape.layerCount);
    }
    const before = await cacheOf(drive);
    const file = new SequentialFile(join(folder, 'media', 'cells.bin'));
    try {
      for (let round = 0; round <= options.rounds; round++) {
        progress.update(`${shape.name}: ${percentText(round / options.rounds)}`);
        const disk: number[] = [];
        for (const probe of probes) disk.push(await file.sampleRate(probe));
        const sample = { disk, kernel: sampleRate(team, kernel, round), attend: await walker.sampleRate() };
        if (round > 0) samples.push(sample);
      }
    } finally {
      file.close();
    }
    const after = await cacheOf(drive);
    const hits = after.hitPages - before.hitPages;
    return hits / (hits + after.missPages - before.missPages);
  });
  progress.update(`${shape.name}: by the page cache …`);
  const pageCache = await withDrive(ground, ['--io', 'mapped'], async (walker) => {
    await walker.walk(shape.layerCount);
    const rates: number[] = [];
    for (let round = 0; round < options.rounds; round++) rates.push(await walker.sampleRate());
    return median(rates);
  });
  progress.clear();
  const cached = cacheBytes / kvBytes;
  const disk = Math.max(...probes.map((_, i) => median(samples.map((sample) => sample.disk[i]!))));
  const memory = median(samples.map((sample) => sample.kernel));
  const attend = median(samples.map((sample) => sample.attend));
  const bound = { name: 'disk and memory', value: 1 / ((1 - cached) / disk + cached / memory) };
  const where = `${shape.name}, ${threadCount} threads, cache of ${(100 * cached).toFixed(0)} %`;
  const common = { bench: 'cold', case: where, unit: 'GB/s', samples: samples.length };
  output.line(compare({ ...common, metric: 'direct I/O', value: attend }, bound, 'cold'));
  output.line(compare({ ...common, metric: 'hits', value: 100 * hitShare, unit: '%' }, optimumOf(cached)));
  output.line(compare({ ...common, metric: 'disk, best sequential', value: disk }));
  output.line(compare({ ...common, metric: 'kernel, memory', value: memory }));
  output.line(compare({ ...common, metric: 'page cache, all fits', value: pageCache }, bound));
}

/** Of a cycle, no cache can have more hits than its share of it. */
const optimumOf = (cached: number) => ({ name: 'share of the cache', value: 100 * cached });

async function cacheOf(drive: TemporaryDrive) {
  const admin = new AdminClient(locateDrive(drive.folder).adminAddress!);
  try {
    return (await admin.drive()).cache;
  } finally {
    await admin.close();
  }
}

/** A drive over the folder, and a decoder on it. */
async function withDrive<T>(
  { folder, shape, threadCount }: Ground,
  io: readonly string[],
  work: (walker: Walker, drive: TemporaryDrive) => Promise<T>,
): Promise<T> {
  const drive = await startDriveOver(folder, ['--kernels', 'native', '--workers', String(threadCount), ...io]);
  try {
    const client = await DriveClient.connect(drive.address);
    try {
      const [id] = await client.kv.list();
      const request = await prepareQuery(client, await client.kv.open(id!), shape);
      try {
        return await work(new Walker(request, shape), drive);
      } finally {
        request.release();
      }
    } finally {
      await client.close();
    }
  } finally {
    await drive.stop();
  }
}

/** Goes through the layers, one ATTN after another. */
class Walker {
  readonly #request: PreparedAttend;
  readonly #shape: BenchShape;
  #next = 0;

  constructor(request: PreparedAttend, shape: BenchShape) {
    this.#request = request;
    this.#shape = shape;
  }

  async walk(count: number): Promise<void> {
    const entry = this.#request.entries[0]!;
    for (let i = 0; i < count; i++) {
      entry.layer = this.#next++ % this.#shape.layerCount;
      await this.#request.post();
    }
  }

  /** GB/s of K and V. */
  async sampleRate(): Promise<number> {
    const count = Math.max(1, Math.round(SAMPLE_BYTES / layerBytes(this.#shape)));
    const startMs = performance.now();
    await this.walk(count);
    return (count * layerBytes(this.#shape)) / (performance.now() - startMs) / 1e6;
  }
}

interface Probe {
  readonly blockBytes: number;
  readonly depth: number;
}

/** Reads a file from its beginning to its end and again, past the page cache. */
class SequentialFile {
  readonly #descriptor: number;
  readonly #sizeBytes: number;
  readonly #io: DirectIo;
  #position = 0;

  constructor(path: string) {
    this.#sizeBytes = statSync(path).size;
    this.#descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
    const memoryBytes = Math.max(...probes.map(({ blockBytes, depth }) => blockBytes * depth));
    this.#io = new DirectIo(this.#descriptor, createSlab(memoryBytes));
    this.#io.memory.fill(1);
  }

  async sampleRate(probe: Probe): Promise<number> {
    let left = Math.max(probe.depth, Math.round(SAMPLE_BYTES / 2 / probe.blockBytes));
    const totalBytes = left * probe.blockBytes;
    const startMs = performance.now();
    const lane = async (offset: number): Promise<void> => {
      while (left-- > 0) await this.#read(offset, probe.blockBytes);
    };
    await Promise.all(Array.from({ length: probe.depth }, (_, i) => lane(i * probe.blockBytes)));
    return totalBytes / (performance.now() - startMs) / 1e6;
  }

  #read(offset: number, sizeBytes: number): Promise<void> {
    if (this.#position + sizeBytes > this.#sizeBytes) this.#position = 0;
    const range = { position: this.#position, offset, sizeBytes };
    this.#position += sizeBytes;
    return new Promise((resolve, reject) => {
      this.#io.transfer('read', range, (error) => (error ? reject(error) : resolve()));
    });
  }

  close(): void {
    this.#io.close();
    closeSync(this.#descriptor);
  }
}
