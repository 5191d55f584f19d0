/** Namespace 1 as a disk: file system, verified load, discard. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { GuestDevices, LinuxRig } from './linux-rig.ts';

const FIO_TIMEOUT_MS = 600_000;

/** A verified job on the raw device: writes, then reads everything back and compares checksums. */
export const fio = (device: string, options: string): string =>
  `fio --name=verify --filename=${device} --ioengine=libaio --direct=1 --verify=crc32c --verify_fatal=1 ` +
  `--output-format=terse --minimal ${options}`;

export function blockTests(rig: LinuxRig): void {
  describe('the block namespace', () => {
    let devices: GuestDevices;
    before(async () => {
      devices = await rig.connect('-i 2 -Q 128');
    });
    after(() => rig.disconnect());

    test('several I/O queues: by CPU, and read and poll queues of their own', async () => {
      assert.match(await rig.guest.output('dmesg'), /mapped 2\/0\/0 default\/read\/poll queues/);
      await rig.disconnect();
      devices = await rig.connect('-i 2 -W 2 -P 2 -Q 128');
      assert.match(await rig.guest.output('dmesg'), /mapped 2\/2\/2 default\/read\/poll queues/);
    });

    test('mkfs.ext4, mount, files, fsck', async () => {
      const { block } = devices;
      await rig.guest.output(`mkfs.ext4 -q ${block} && mount -o discard ${block} /mnt`);
      await rig.guest.output(`
        mkdir -p /mnt/a/b && dd if=/dev/urandom of=/mnt/a/big bs=64k count=160 2>/dev/null
        for i in $(seq 100); do echo file $i >/mnt/a/b/$i; done
        (cd /mnt && md5sum a/big a/b/*) >/tmp/sums
        rm /mnt/a/b/1? && sync && umount /mnt && mount ${block} /mnt`);
      const { stdout } = await rig.guest.run('cd /mnt && grep -v "b/1.$" /tmp/sums | md5sum -c | grep -vc OK$');
      assert.equal(stdout.trim(), '0', 'files that differ after a mount');
      await rig.guest.output(`umount /mnt && e2fsck -f -n ${block}`);
    });

    const loads = [
      ['random 4k', '--rw=randwrite --bs=4k --size=8m'],
      ['sequential 4k', '--rw=write --bs=4k --size=8m'],
      ['random 4k to 64k', '--rw=randwrite --bsrange=4k-64k --size=24m'],
      ['sequential 128k', '--rw=write --bs=128k --size=32m'],
      ['sequential 1m', '--rw=write --bs=1m --size=32m'],
      ['random 1m', '--rw=randwrite --bs=1m --size=48m'],
      ['random 4k, 128 deep', '--rw=randwrite --bs=4k --size=16m --iodepth=128'],
      ['mixed, 2 jobs', '--rw=randrw --bsrange=4k-256k --size=16m --numjobs=2 --offset_increment=64m'],
    ] as const;
    for (const [name, options] of loads) {
      test(`fio with crc32c, ${name}`, { timeout: FIO_TIMEOUT_MS }, async () => {
        await rig.guest.output(fio(devices.block, `--iodepth=32 ${options}`), FIO_TIMEOUT_MS);
      });
    }

    test('the same with header and data digests', { timeout: FIO_TIMEOUT_MS }, async () => {
      await rig.disconnect();
      for (const flags of ['--hdr-digest', '--data-digest', '--hdr-digest --data-digest']) {
        const { block } = await rig.connect(`${flags} -i 2`);
        const load = '--rw=randwrite --bsrange=4k-256k --size=12m --iodepth=32';
        await rig.guest.output(fio(block, load), FIO_TIMEOUT_MS);
        await rig.guest.output(`nvme id-ctrl ${block}`);
        await rig.disconnect();
      }
      devices = await rig.connect('-i 2 -Q 128 --hdr-digest --data-digest');
    });

    test('blkdiscard', async () => {
      const { block } = devices;
      await rig.guest.output(`dd if=/dev/urandom of=${block} bs=64k count=16 oflag=direct && blkdiscard ${block}`);
      const left = await rig.guest.output(`dd if=${block} bs=64k count=16 iflag=direct | tr -d '\\0' | wc -c`);
      assert.equal(left.trim(), '0');
      const fields = await rig.guest.json<{ nuse: number }>(`nvme id-ns ${block} -o json`);
      assert.equal(fields.nuse, 0);
    });
  });
}
