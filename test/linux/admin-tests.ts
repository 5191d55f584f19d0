/** What nvme-cli reads and sets. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { BLOCK_NSID, KV_CACHE_CSI } from '../../spec/kv-commands.ts';
import type { GuestDevices, LinuxRig } from './linux-rig.ts';

export function adminTests(rig: LinuxRig): void {
  describe('nvme-cli', () => {
    let devices: GuestDevices;
    before(async () => {
      devices = await rig.connect('-i 2');
    });
    after(() => rig.disconnect());

    test('list', async () => {
      const { Devices: list } = await rig.guest.json<{ Devices: Record<string, unknown>[] }>('nvme list -o json');
      assert.equal(list.length, 1);
      assert.equal(list[0]?.['DevicePath'], devices.block);
      assert.equal(list[0]?.['PhysicalSize'], 256 * 2 ** 20);
      assert.equal(list[0]?.['SectorSize'], 4096);
    });

    test('id-ctrl', async () => {
      const fields = await rig.guest.json<Record<string, unknown>>(`nvme id-ctrl ${devices.controller} -o json`);
      assert.equal(fields['subnqn'], rig.nqn);
      assert.equal(fields['cntrltype'], 1);
      assert.equal(fields['mdts'], 8);
      assert.equal(String(fields['mn']).trim(), 'attndrive computational storage drive');
    });

    test('id-ns', async () => {
      const fields = await rig.guest.json<Record<string, unknown>>(`nvme id-ns ${devices.block} -o json`);
      assert.equal(fields['nsze'], (256 * 2 ** 20) / 4096);
      assert.deepEqual(fields['lbafs'], [{ ms: 0, ds: 12, rp: 0 }]);
    });

    test('list-ns, by command set too', async () => {
      assert.match(await rig.guest.output(`nvme list-ns ${devices.controller}`), /0\]:0x1\n.*1\]:0x2/s);
      const kv = await rig.guest.output(`nvme list-ns ${devices.controller} --csi=${KV_CACHE_CSI}`);
      assert.match(kv, /0\]:0x2/);
    });

    test('smart-log', async () => {
      const log = await rig.guest.json<Record<string, unknown>>(`nvme smart-log ${devices.controller} -o json`);
      assert.equal(log['critical_warning'], 0);
      assert.equal(log['avail_spare'], 100);
    });

    test('effects-log', async () => {
      const log = await rig.guest.output(`nvme effects-log ${devices.controller} --csi=0`);
      assert.match(log, /ACS6\s+\[Identify/);
      assert.match(log, /IOCS9\s+\[Dataset Management\s+\] 00000003/);
      const kv = await rig.guest.output(`nvme effects-log ${devices.controller} --csi=${KV_CACHE_CSI}`);
      assert.match(kv, /IOCS193\s+\[.*\] 00000003/);
    });

    test('get-feature and set-feature', async () => {
      const { controller } = devices;
      const current = async (): Promise<string> => rig.guest.output(`nvme get-feature ${controller} -f 6`);
      assert.match(await current(), /0x0*1$/m);
      await rig.guest.output(`nvme set-feature ${controller} -f 6 -v 0`);
      assert.match(await current(), /:0+$|:0x0+$/m);
      await rig.guest.output(`nvme set-feature ${controller} -f 6 -v 1`);
    });

    test('flush, write-zeroes, dsm', async () => {
      const { block } = devices;
      await rig.guest.output(`dd if=/dev/urandom of=${block} bs=4096 count=16 oflag=direct`);
      await rig.guest.output(`nvme flush ${block} -n ${BLOCK_NSID}`);
      await rig.guest.output(`nvme write-zeroes ${block} -n ${BLOCK_NSID} -s 2 -c 1`);
      await rig.guest.output(`nvme dsm ${block} -n ${BLOCK_NSID} --ad -s 6 -b 2`);
      const zero = await rig.guest.output(`
        dd if=${block} bs=4096 count=16 iflag=direct of=/tmp/blocks
        for i in $(seq 0 15); do
          dd if=/tmp/blocks bs=4096 skip=$i count=1 2>/dev/null | tr -d '\\0' | wc -c | grep -qx 0 && echo $i
        done; true`);
      assert.deepEqual(zero.trim().split('\n'), ['2', '3', '6', '7']);
    });

    test('reset', async () => {
      await rig.guest.output(`nvme reset ${devices.controller}`);
      await rig.guest.output(`nvme id-ctrl ${devices.controller}`);
      assert.deepEqual(await rig.devices(), devices);
    });
  });
}
