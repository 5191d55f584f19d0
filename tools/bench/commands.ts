/**
 * How many commands a second one queue takes: the smallest there are, 32 at a time, against as many bare messages of 64
 * bytes between two processes.
 */
import { BLOCK_NSID, nvmOpcodes, SGL_FLAGS, submissionEntry } from '../../spec/index.ts';
import { Progress } from '../cli/output.ts';
import { BareLoad, startBarePeer } from './bare-peer.ts';
import type { Bench } from './bench.ts';
import { interleave } from './measure.ts';
import { PduLoad } from './pdu-load.ts';
import { compare } from './report.ts';
import { withSocketDrive } from './socket-drive.ts';

const DEPTH = 32;
const ROUND_COUNT = 25_600;
const QUICK_ROUND_COUNT = 640;
/** Rounds that the drive's event loop is watched for. */
const LOAD_ROUNDS = 10;
const MESSAGE_BYTES = 64;
const BLOCK_CAPACITY_BYTES = 16 * 2 ** 20;

export const commandsBench: Bench = {
  name: 'commands',
  summary: 'smallest commands, 32 at a time over one Unix socket, against bare messages of 64 bytes',
  async run(options, output) {
    const progress = new Progress();
    const count = options.quick ? QUICK_ROUND_COUNT : ROUND_COUNT;
    await withSocketDrive(options, { blockCapacityBytes: BLOCK_CAPACITY_BYTES }, async (drive) => {
      const peer = await startBarePeer('unix');
      const client = await drive.connect('unix');
      // Verify of a block that was never written: 64 bytes in, 16 bytes out, no data, and hardly any work.
      const { opcode } = nvmOpcodes.verify;
      const entry = submissionEntry.encode({ opcode, flags: SGL_FLAGS, namespaceId: BLOCK_NSID });
      const size = { requestBytes: MESSAGE_BYTES, replyBytes: MESSAGE_BYTES, depth: DEPTH };
      const messages = await BareLoad.connect(peer, size);
      const commands = await PduLoad.toDrive(drive.queueOf(client), { entry, answerDataBytes: 0 }, DEPTH);
      const bySdk = async (commandCount: number): Promise<void> => {
        const request = { queue: 'io', opcode, namespaceId: BLOCK_NSID } as const;
        for (let i = 0; i < commandCount; i++) await client.passThrough(request);
      };
      try {
        const measured = await interleave(
          options.rounds,
          [
            { name: 'messages', run: () => messages.run(count) },
            { name: 'commands', run: () => commands.run(count) },
            { name: 'SDK', run: () => Promise.all(Array.from({ length: DEPTH }, () => bySdk(count / DEPTH))) },
          ],
          (round) => progress.update(`commands: round ${round} of ${options.rounds}`),
        );
        progress.clear();
        const rate = (name: string): number => (1000 * count) / measured.get(name)!.medianMs;
        const common = { bench: 'commands', case: `Verify, Unix socket, depth ${DEPTH}`, unit: '1/s' };
        const baseline = { name: 'messages of 64 B', value: rate('messages') };
        const { rounds: samples } = options;
        output.line(compare({ ...common, metric: 'commands', value: rate('commands'), samples }, baseline, 'commands'));
        output.line(compare({ ...common, metric: 'commands by the SDK', value: rate('SDK'), samples }, baseline));
        await drive.loop.report(common, () => commands.run(LOAD_ROUNDS * count), output);
      } finally {
        messages.close();
        commands.close();
        await client.close();
        peer.stop();
      }
    });
  },
};
