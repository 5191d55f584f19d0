/** `nvme discover` and `nvme connect-all`: one drive that tells of itself, and a rack that a service tells of. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { DISCOVERY_NQN, subsystemNqn } from '../../spec/fabrics.ts';
import { runningDrive } from '../e2e/served-drive.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { HOST_ADDRESS } from './guest.ts';
import type { LinuxRig } from './linux-rig.ts';

interface DiscoveryRecord {
  readonly subtype: string;
  readonly subnqn: string;
  readonly traddr: string;
  readonly trsvcid: string;
  readonly trtype: string;
  readonly treq: string;
}

export function discoveryTests(rig: LinuxRig): void {
  describe('discovery', () => {
    const other = new DaemonProcess('16MiB');
    const nqnOf = (daemon: DaemonProcess): string => subsystemNqn(runningDrive(daemon).serial);
    const startOther = (): Promise<void> => other.start(['--tcp', '127.0.0.1:0', ...rig.registration]);
    const service = (): string => `-t tcp -a ${HOST_ADDRESS} -s ${rig.discovery.port}`;
    const discover = async (what: string): Promise<DiscoveryRecord[]> => {
      const { records } = await rig.guest.json<{ records: DiscoveryRecord[] }>(`nvme discover ${what} -o json`);
      return records;
    };
    const found = (records: readonly DiscoveryRecord[]): string[] => records.map(({ subnqn }) => subnqn).sort();
    /** The service learns of a drive a moment after the drive is ready. */
    const untilFound = async (count: number): Promise<DiscoveryRecord[]> => {
      for (;;) {
        const records = await discover(service());
        if (records.length === count) return records;
      }
    };

    before(startOther);
    after(() => other.remove());

    test('a drive tells where it is itself', async () => {
      const [record, ...more] = await discover(rig.address);
      assert.deepEqual(more, []);
      assert.deepEqual(
        [record?.subnqn, record?.traddr, record?.trsvcid, record?.subtype, record?.trtype],
        [rig.nqn, HOST_ADDRESS, rig.port, 'nvme subsystem', 'tcp'],
      );
      assert.match(record?.treq ?? '', /sq flow control disable supported/);
    });

    test('a rack: discover finds both drives, connect-all connects them, and blocks of each come back', async () => {
      const wanted = [rig.nqn, nqnOf(other)].sort();
      assert.deepEqual(found(await untilFound(2)), wanted);
      await rig.guest.output(`nvme connect-all ${service()}`);
      for (const nqn of wanted) {
        const { block } = await rig.devices(nqn);
        await rig.guest.output(`
          dd if=/dev/urandom of=/tmp/blocks bs=4096 count=32 2>/dev/null
          dd if=/tmp/blocks of=${block} bs=4096 oflag=direct && dd if=${block} of=/tmp/back bs=4096 count=32 iflag=direct
          cmp /tmp/blocks /tmp/back`);
      }
      const list = await rig.guest.output('nvme list-subsys');
      for (const nqn of wanted) assert.ok(list.includes(nqn), list);
      await rig.guest.output('nvme disconnect-all');
    });

    test('a persistent discovery controller: the kernel hears of a drive that died, and of its return', async () => {
      await rig.guest.output(`nvme discover ${service()} --persistent --keep-alive-tmo=30`);
      const found1 = await rig.guest.output(`grep -l ${DISCOVERY_NQN} /sys/class/nvme/*/subsysnqn`);
      const device = found1.trim().split('/').at(-2) as string;
      const hear = async (change: () => Promise<unknown>): Promise<void> => {
        await rig.guest.startUevents();
        await change();
        await rig.guest.untilUevent(/^NVME_AEN=0x70f002$/m);
      };
      await hear(() => other.end('SIGKILL'));
      assert.deepEqual(found(await discover(`-d ${device}`)), [rig.nqn]);
      await hear(startOther);
      assert.deepEqual(found(await discover(`-d ${device}`)), [rig.nqn, nqnOf(other)].sort());
      await rig.guest.output(`nvme dim -d ${device} -t register && nvme dim -d ${device} -t deregister`);
      assert.equal((await discover(`-d ${device}`)).length, 2, 'hosts that register are not told of');
      const fields = await rig.guest.json<Record<string, unknown>>(`nvme id-ctrl /dev/${device} -o json`);
      assert.deepEqual([fields['cntrltype'], fields['subnqn']], [2, DISCOVERY_NQN]);
      await rig.guest.output('nvme disconnect-all');
    });
  });
}
