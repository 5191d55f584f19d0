/** What nvme-cli reads and sets. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { features } from '../../spec/features.ts';
import { BLOCK_NSID, KV_CACHE_CSI } from '../../spec/kv-commands.ts';
import { logPages } from '../../spec/log-pages.ts';
import type { GuestDevices, LinuxRig } from './linux-rig.ts';

const OACS_FORMAT = 1 << 1;

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

    test('endurance-log, and the group that both namespaces are of', async () => {
      const { controller, block } = devices;
      const log = await rig.guest.json<Record<string, unknown>>(`nvme endurance-log ${controller} -g 1 -o json`);
      assert.deepEqual([log['critical_warning'], log['avl_spare'], log['percent_used']], [0, 100, 0]);
      const identity = await rig.guest.json<Record<string, unknown>>(`nvme id-ctrl ${controller} -o json`);
      assert.equal(identity['endgidmax'], 1);
      const namespace = await rig.guest.json<Record<string, unknown>>(`nvme id-ns ${block} -o json`);
      assert.deepEqual([namespace['endgid'], namespace['nsattr']], [1, 0]);
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

    test('compare and verify', async () => {
      const { block } = devices;
      await rig.guest.output(`dd if=/dev/urandom of=/tmp/blocks bs=4096 count=8 2>/dev/null`);
      await rig.guest.output(`dd if=/tmp/blocks of=${block} bs=4096 seek=100 oflag=direct`);
      const compare = `nvme compare ${block} -s 100 -c 7 -z 32768 -d`;
      await rig.guest.output(`${compare} /tmp/blocks`);
      const other = await rig.guest.run(`${compare} /dev/zero`);
      assert.match(other.stderr + other.stdout, /Compare Failure.*285\)/);
      await rig.guest.output(`nvme verify ${block} -s 100 -c 7`);
      const beyond = await rig.guest.run(`nvme verify ${block} -s 65536 -c 0`);
      assert.match(beyond.stderr + beyond.stdout, /LBA Out of Range/);
    });

    test('error-log: the errors above, and where they were', async () => {
      const { errors } = await rig.guest.json<{ errors: Record<string, number>[] }>(
        `nvme error-log ${devices.controller} -e 2 -o json`,
      );
      const [last, before] = errors;
      assert.equal(Number(last?.['error_count']), Number(before?.['error_count']) + 1);
      assert.deepEqual(
        [last?.['status_field'], last?.['parm_error_location'], last?.['nsid']],
        [0x6080, 40, BLOCK_NSID],
      );
      assert.equal(last?.['lba'], 65_536);
      assert.equal(before?.['status_field'], 0x6285);
      const smart = await rig.guest.json<Record<string, number>>(`nvme smart-log ${devices.controller} -o json`);
      assert.equal(Number(smart['num_err_log_entries']), Number(last?.['error_count']));
    });

    test('fw-log, supported-log-pages, fid-support-effects-log, changed-ns-list-log', async () => {
      const { controller } = devices;
      assert.match(await rig.guest.output(`nvme fw-log ${controller}`), /afi\s+: 0x1/);
      const pages = await rig.guest.output(`nvme supported-log-pages ${controller}`);
      const lids = [...pages.matchAll(/^LID 0x([0-9a-f]+) /gm)].map(([, lid]) => Number.parseInt(lid as string, 16));
      assert.deepEqual(
        lids,
        Object.values(logPages)
          .map(({ lid }) => lid)
          .sort((a, b) => a - b),
      );
      const supported = await rig.guest.output(`nvme fid-support-effects-log ${controller}`);
      const fids = [...supported.matchAll(/^FID ([0-9a-f]+) /gm)].map(([, fid]) => Number.parseInt(fid as string, 16));
      assert.deepEqual(
        fids,
        Object.values(features).map(({ fid }) => fid),
      );
      await rig.guest.output(`nvme changed-ns-list-log ${controller} && nvme endurance-log ${controller} -g 1`);
    });

    test('get-feature: every feature; set-feature and its event: a temperature threshold is crossed', async () => {
      const { controller } = devices;
      for (const { fid, dataBytes } of Object.values(features)) {
        const length = dataBytes > 0 ? `-l ${dataBytes}` : '';
        const selector = fid === features.hostIdentifier.fid ? '--cdw11=1' : '';
        await rig.guest.output(`nvme get-feature ${controller} -f ${fid} ${length} ${selector}`);
      }
      await rig.guest.startUevents();
      await rig.guest.output(
        `nvme set-feature ${controller} -f 0x0b -v 0x11f && nvme set-feature ${controller} -f 4 -v 200`,
      );
      await rig.guest.untilUevent(/^NVME_AEN=0x020101$/m);
      const log = await rig.guest.json<Record<string, unknown>>(`nvme smart-log ${controller} -o json`);
      assert.equal(log['critical_warning'], 2);
      await rig.guest.output(`nvme set-feature ${controller} -f 4 -v 0xffff`);
    });

    test('abort: of a command that is not there', async () => {
      const { status, stderr } = await rig.guest.run(
        `nvme admin-passthru ${devices.controller} --opcode=8 --cdw10=0x10001`,
      );
      assert.equal(status, 0);
      assert.match(stderr, /result: 0x0*1$/m);
    });

    test('format', async () => {
      const { controller, block } = devices;
      const { oacs } = await rig.guest.json<{ oacs: number }>(`nvme id-ctrl ${controller} -o json`);
      assert.notEqual(oacs & OACS_FORMAT, 0);
      await rig.guest.output(`dd if=/dev/urandom of=${block} bs=4096 count=64 oflag=direct`);
      await rig.guest.output(`nvme format ${controller} -n ${BLOCK_NSID} --force`);
      const left = await rig.guest.output(`dd if=${block} bs=4096 count=64 iflag=direct | tr -d '\\0' | wc -c`);
      assert.equal(left.trim(), '0');
    });

    test('reset', async () => {
      await rig.guest.output(`nvme reset ${devices.controller}`);
      await rig.guest.output(`nvme id-ctrl ${devices.controller}`);
      assert.deepEqual(await rig.devices(), devices);
    });
  });
}
