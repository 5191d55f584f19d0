/**
 * ATTN against what a host without it does: read the layer's K and V back, over the socket, over HTTP or through a memory
 * region, and attend to them itself, with the drive's own kernels on as many threads. How fast the socket is by itself is
 * printed beside it.
 */
import { DriveClient, type Sequence } from '../../client/index.ts';
import { createArena } from '../../daemon/base/arena.ts';
import { Progress } from '../cli/output.ts';
import { CliError } from '../cli/cli-error.ts';
import { BareLoad, type BarePeer, startBarePeer } from './bare-peer.ts';
import { type Bench, type BenchDrive, type BenchOptions, withBenchDrive } from './bench.ts';
import { ClientAttention } from './client-attention.ts';
import { ComputePool } from './compute-pool.ts';
import { prepareQuery, warmUp } from './drive-layers.ts';
import { HttpRows } from './http-rows.ts';
import { type Contender, interleave, type Measured } from './measure.ts';
import { type BenchOutput, compare } from './report.ts';
import { type BenchShape, benchShapes, layerBytes } from './shapes.ts';
import type { TargetName } from './targets.ts';

const SLACK_BYTES = 4 << 20;
const F16_BYTES = 2;
/** Largest difference of an output element between both ways, relative to the largest element. */
const TOLERANCE = 1e-4;
/** The bare transfer comes in pieces as large as a drive's. */
const PIECE_BYTES = 2 ** 20;
const PIECES_IN_FLIGHT = 16;
const MESSAGE_BYTES = 64;

export const readbackBench: Bench = {
  name: 'readback',
  summary: 'ATTN against reading the same keys and values back and attending in the client',
  async run(options, output) {
    const progress = new Progress();
    const workerCounts = options.workers !== undefined ? [options.workers] : options.quick ? [2] : [1, 2];
    for (const shape of benchShapes(options.quick)) {
      for (const workers of workerCounts) {
        await withBenchDrive(shape, { ...options, workers }, progress, (bench) =>
          measure(bench, shape, options, output, progress),
        );
      }
    }
  },
};

async function measure(
  bench: BenchDrive,
  shape: BenchShape,
  options: BenchOptions,
  output: BenchOutput,
  progress: Progress,
): Promise<void> {
  const arena = createArena(layerBytes(shape) + SLACK_BYTES);
  const pool = new ComputePool(bench.threadCount, { memory: arena.memory, kernels: bench.kernels });
  const attention = new ClientAttention(shape, arena, pool);
  const request = await prepareQuery(bench.client, bench.sequence, shape);
  const entry = request.entries[0]!;
  attention.queries.set(entry.queries);
  const peer = await startBarePeer('unix');
  const overSocket = await DriveClient.connect(bench.drive.address, { regions: 'off' });
  const http = await HttpRows.open(bench.drive.address, bench.sequence.id, bench.drive.runtimeFolder);
  try {
    await warmUp(request, shape);
    const layerOf = (round: number): number => round % shape.layerCount;
    const attend: Contender = {
      name: 'attend',
      prepare: (round) => {
        entry.layer = layerOf(round);
      },
      run: () => request.post(),
    };
    const haul = (name: string, read: (layer: number) => Promise<unknown>): Contender => ({
      name,
      run: async (round) => {
        await read(layerOf(round));
        await attention.run();
      },
    });
    const socketSequence = await overSocket.kv.open(bench.sequence.id);
    const bare = await bareTransfer(peer, attention.layer);
    const overBare = (): Promise<void> => bare.run(Math.ceil(layerBytes(shape) / PIECE_BYTES));
    const measured = await interleave(
      options.rounds,
      [
        attend,
        haul('socket', (layer) => readLayer(socketSequence, layer, shape, attention)),
        haul('HTTP', (layer) => http.read(layer, shape, attention.layer)),
        haul('region', (layer) => readLayer(bench.sequence, layer, shape, attention)),
        { name: 'socket alone', run: (round) => readLayer(socketSequence, layerOf(round), shape, attention) },
        { name: 'bare', run: overBare },
      ],
      (round) => progress.update(`${shape.name}: round ${round} of ${options.rounds}`),
      (round, name) => {
        const isHaul = name === 'socket' || name === 'HTTP' || name === 'region';
        if (round === 0 && isHaul) checkEqual(entry.output as Float32Array, attention.output, `${shape.name}, ${name}`);
      },
    );
    bare.close();
    progress.clear();
    report(measured, { bench, shape, samples: options.rounds }, output);
  } finally {
    request.release();
    peer.stop();
    await http.close();
    await overSocket.close();
    await pool.close();
  }
}

const bareTransfer = (peer: BarePeer, target: Uint8Array): Promise<BareLoad> =>
  BareLoad.connect(peer, { requestBytes: MESSAGE_BYTES, replyBytes: PIECE_BYTES, depth: PIECES_IN_FLIGHT }, target);

function report(
  measured: ReadonlyMap<string, Measured>,
  { bench, shape, samples }: { readonly bench: BenchDrive; readonly shape: BenchShape; readonly samples: number },
  output: BenchOutput,
): void {
  const label = `${shape.name}, ${bench.kernels}, ${bench.threadCount} thread${bench.threadCount === 1 ? '' : 's'}`;
  const common = { bench: 'readback', case: label, samples };
  // Rates, so that a larger ratio is better.
  const perSecond = (name: string): number => 1000 / measured.get(name)!.medianMs;
  const targets: Record<string, TargetName> = {
    socket: bench.threadCount === 1 ? 'readbackSocketOne' : 'readbackSocketTwo',
    HTTP: 'readbackHttp',
  };
  for (const way of ['socket', 'HTTP', 'region'] as const) {
    const line = { ...common, metric: `ATTN against ${way}`, value: perSecond('attend'), unit: '1/s' };
    output.line(compare(line, { name: `read back (${way}) and attend`, value: perSecond(way) }, targets[way]));
  }
  const rate = (name: string): number => (layerBytes(shape) * perSecond(name)) / 1e9;
  const line = { ...common, metric: 'read back by socket', value: rate('socket alone'), unit: 'GB/s' };
  output.line(compare(line, { name: 'bare transfer', value: rate('bare') }, 'socketTransfer'));
  output.line(compare({ ...common, metric: 'bytes kept from link', value: layerBytes(shape), unit: 'B' }));
}

/** K, then V, of all heads, straight into the memory that the kernels attend to. */
async function readLayer(
  sequence: Sequence,
  layer: number,
  shape: BenchShape,
  attention: ClientAttention,
): Promise<void> {
  const elements = attention.layer.byteLength / 2 / F16_BYTES;
  const { buffer, byteOffset } = attention.layer;
  const keys = new Uint16Array(buffer, byteOffset, elements);
  const values = new Uint16Array(buffer, byteOffset + elements * F16_BYTES, elements);
  await sequence.readBack({ layer, headMajor: true, tokenEnd: shape.tokenCount, into: { keys, values } });
}

/** A race between two ways that do not arrive at the same place would mean nothing. */
function checkEqual(drive: Float32Array, client: Float32Array, what: string): void {
  const scale = Math.max(...drive.map(Math.abs));
  for (const [i, value] of drive.entries()) {
    const difference = Math.abs(value - client[i]!);
    if (!(difference <= TOLERANCE * scale)) {
      throw new CliError(`${what}: output ${i} is ${value} in the drive and ${client[i]} in the client`);
    }
  }
}
