/**
 * The block namespace over a socket: random 4 KiB reads and writes against a process that answers the same PDUs and has no
 * drive in it. The commands come from the same code on both sides; what the SDK adds is printed beside it.
 */
import type { DriveClient } from '../../client/index.ts';
import { BLOCK_NSID, encodeSgl, nvmOpcodes, SGL_FLAGS, submissionEntry } from '../../spec/index.ts';
import { createSeededRandom } from '../../daemon/base/random.ts';
import { Progress } from '../cli/output.ts';
import { type BarePeer, type SocketKind, startBarePeer } from './bare-peer.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { interleave } from './measure.ts';
import { type PduCommand, PduLoad } from './pdu-load.ts';
import { type BenchOutput, compare } from './report.ts';
import { type SocketDrive, withSocketDrive } from './socket-drive.ts';

const BLOCK_BYTES = 4096;
const BLOCKS_PER_WRITE = 256;
/** Commands of a timed round, by depth. */
const roundCounts = new Map([
  [1, 500],
  [32, 6400],
]);
/** Rounds that the drive's event loop is watched for. */
const LOAD_ROUNDS = 10;
type Operation = 'read' | 'write';

export const blockBench: Bench = {
  name: 'block',
  summary: '4 KiB reads and writes over Unix socket and TCP, against an echo of the same PDUs',
  async run(options, output) {
    const progress = new Progress();
    const blockCapacityBytes = (options.quick ? 16 : 256) * 2 ** 20;
    for (const kind of ['unix', 'tcp'] as const) {
      await withSocketDrive(options, { blockCapacityBytes }, async (drive) => {
        const peer = await startBarePeer(kind);
        const client = await drive.connect(kind);
        try {
          // A quarter of the namespace: what garbage collection adds to writes is the matter of another benchmark.
          const blockCount = blockCapacityBytes / BLOCK_BYTES / 4;
          await fill(client, blockCount);
          for (const operation of ['read', 'write'] as const) {
            for (const depth of [1, 32]) {
              const race = { kind, operation, depth, blockCount, drive, client, peer };
              await measure(race, options, output, progress);
            }
          }
        } finally {
          await client.close();
          peer.stop();
        }
      });
    }
  },
};

async function fill(client: DriveClient, blockCount: number): Promise<void> {
  const bytes = new Uint8Array(BLOCKS_PER_WRITE * BLOCK_BYTES).fill(1);
  for (let lba = 0; lba < blockCount; lba += BLOCKS_PER_WRITE) await client.block.write(lba, bytes);
  await client.block.flush();
  // Pages are checked on their first use.
  for (let lba = 0; lba < blockCount; lba += BLOCKS_PER_WRITE) await client.block.read(lba, BLOCKS_PER_WRITE);
}

interface Race {
  readonly kind: SocketKind;
  readonly operation: Operation;
  readonly depth: number;
  readonly blockCount: number;
  readonly drive: SocketDrive;
  readonly client: DriveClient;
  readonly peer: BarePeer;
}

async function measure(race: Race, options: BenchOptions, output: BenchOutput, progress: Progress): Promise<void> {
  const { kind, operation, depth, blockCount, drive, client, peer } = race;
  const random = createSeededRandom(7);
  const command = blockCommand(operation, () => random.nextUint32() % blockCount);
  const count = Math.ceil(roundCounts.get(depth)! / (options.quick ? 20 : 1));
  const onDrive = await PduLoad.toDrive(drive.queueOf(client), command, depth);
  const onPeer = await PduLoad.toPeer(peer, command, depth);
  const data = new Uint8Array(BLOCK_BYTES).fill(2);
  const bySdk = async (commands: number): Promise<void> => {
    for (let i = 0; i < commands; i++) {
      const lba = random.nextUint32() % blockCount;
      if (operation === 'read') await client.block.read(lba, 1);
      else await client.block.write(lba, data);
    }
  };
  try {
    const measured = await interleave(
      options.rounds,
      [
        { name: 'echo', run: () => onPeer.run(count) },
        { name: 'drive', run: () => onDrive.run(count) },
        { name: 'SDK', run: () => Promise.all(Array.from({ length: depth }, () => bySdk(Math.ceil(count / depth)))) },
      ],
      (round) => progress.update(`${kind}, ${operation}, depth ${depth}: round ${round} of ${options.rounds}`),
    );
    progress.clear();
    const rate = (name: string): number => (1000 * count) / measured.get(name)!.medianMs;
    const common = { bench: 'block', case: `4 KiB ${operation}, ${kind}, depth ${depth}`, unit: '1/s' };
    const echo = { name: 'echo', value: rate('echo') };
    const { rounds: samples } = options;
    output.line(compare({ ...common, metric: 'drive', value: rate('drive'), samples }, echo, 'block'));
    output.line(compare({ ...common, metric: 'drive by the SDK', value: rate('SDK'), samples }, echo));
    if (depth > 1) await drive.loop.report(common, () => onDrive.run(LOAD_ROUNDS * count), output);
  } finally {
    onDrive.close();
    onPeer.close();
  }
}

/** One block. */
function blockCommand(operation: Operation, nextCdw10: () => number): PduCommand {
  const { opcode } = nvmOpcodes[operation];
  const entry = submissionEntry.encode({ opcode, flags: SGL_FLAGS, namespaceId: BLOCK_NSID });
  const isRead = operation === 'read';
  const sgl = isRead
    ? ({ kind: 'transport', length: BLOCK_BYTES } as const)
    : ({ kind: 'inCapsule', offset: 0, length: BLOCK_BYTES } as const);
  encodeSgl(sgl, entry, submissionEntry.offsetOf.sgl);
  if (isRead) return { entry, answerDataBytes: BLOCK_BYTES, nextCdw10 };
  return { entry, answerDataBytes: 0, nextCdw10, data: new Uint8Array(BLOCK_BYTES).fill(3) };
}
