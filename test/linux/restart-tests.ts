/** A daemon that goes away in the middle of a verified load and comes back: the host reconnects and no byte is wrong. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { fio } from './block-tests.ts';
import type { GuestDevices, LinuxRig } from './linux-rig.ts';

const LOAD_TIMEOUT_MS = 900_000;
/** The host tries again every second, for as long as a slow machine may need. */
const RECONNECT = '--reconnect-delay=1 --ctrl-loss-tmo=600 --keep-alive-tmo=5';

export function restartTests(rig: LinuxRig): void {
  describe('a restart in the middle of fio', () => {
    let devices: GuestDevices;
    before(async () => {
      devices = await rig.connect(`-i 2 ${RECONNECT}`);
    });
    after(() => rig.disconnect());

    /** Resolves when the drive has taken so much more. The kernel does not count what goes to a device of many paths. */
    async function untilWritten(bytes: number): Promise<void> {
      const client = await rig.client();
      try {
        const written = async (): Promise<number> => (await client.controller.driveStatistics()).blockWrittenBytes;
        const start = await written();
        while ((await written()) < start + bytes) await new Promise((resolve) => setTimeout(resolve, 20));
      } finally {
        await client.close();
      }
    }

    /** Ends the daemon when a part of the load is written, and starts it again. */
    async function restartUnder(load: string, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
      // Linux sends SIGPIPE to whoever submits a request to a connection that the drive has just closed.
      const job = await rig.guest.background(`trap '' PIPE\n${fio(devices.block, load)}`);
      await untilWritten(4 * 2 ** 20);
      await rig.daemon.end(signal);
      assert.equal(await job.isRunning(), true, 'the load ended before the daemon did');
      await rig.startDaemon();
      const { status, output } = await job.end(LOAD_TIMEOUT_MS);
      assert.equal(status, 0, output);
    }

    const size = '--size=48m --bsrange=4k-64k --iodepth=32';
    test('stopped: what was written before is verified after', { timeout: LOAD_TIMEOUT_MS }, async () => {
      await restartUnder(`--rw=randwrite ${size}`, 'SIGTERM');
      assert.match(await rig.guest.output('dmesg'), /Successfully reconnected/);
    });

    test('killed: what completed with FUA is there', { timeout: LOAD_TIMEOUT_MS }, async () => {
      await restartUnder(`--rw=randwrite ${size} --sync=1`, 'SIGKILL');
    });
  });
}
