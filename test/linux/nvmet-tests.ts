/** The same read-only commands against the drive and against the kernel's own target, in the same guest. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { GuestDevices, LinuxRig } from './linux-rig.ts';
import { differences } from './nvmet-differences.ts';

const NVMET_NQN = 'nqn.2026-11.dev.attndrive.test:nvmet';
const FEATURE_COUNT = 0x1c;

/** A disk of 64 MiB in a file, behind a port of the guest's loopback. */
const setUp = `
  mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
  dd if=/dev/zero of=/tmp/disk bs=1M count=0 seek=64 2>/dev/null
  losetup /dev/loop0 /tmp/disk
  cd /sys/kernel/config/nvmet
  mkdir subsystems/${NVMET_NQN} && echo 1 >subsystems/${NVMET_NQN}/attr_allow_any_host
  mkdir subsystems/${NVMET_NQN}/namespaces/1
  echo /dev/loop0 >subsystems/${NVMET_NQN}/namespaces/1/device_path
  echo 1 >subsystems/${NVMET_NQN}/namespaces/1/enable
  mkdir ports/1
  for field in trtype=tcp adrfam=ipv4 traddr=127.0.0.1 trsvcid=4420; do
    echo \${field#*=} >ports/1/addr_\${field%=*}
  done
  ln -s /sys/kernel/config/nvmet/subsystems/${NVMET_NQN} ports/1/subsystems/
  nvme connect -t tcp -a 127.0.0.1 -s 4420 -n ${NVMET_NQN}`;

type Json = Readonly<Record<string, unknown>>;

export function nvmetTests(rig: LinuxRig): void {
  describe('beside the target of the kernel', () => {
    let drive: GuestDevices;
    let target: Omit<GuestDevices, 'kv'>;

    before(async () => {
      for (const name of ['nvmet', 'nvmet_tcp', 'loop']) await rig.guest.loadModule(name);
      await rig.guest.output(setUp);
      target = await rig.blockDevices(NVMET_NQN);
      drive = await rig.connect();
    });
    after(async () => {
      await rig.disconnect();
      await rig.guest.output(`nvme disconnect -n ${NVMET_NQN}`);
    });

    const both = async (command: string, device: 'controller' | 'block'): Promise<[Json, Json]> => {
      const [name, ...options] = command.split(' ');
      const answer = async (path: string): Promise<Json> =>
        flat(await rig.guest.json<Json>(`nvme ${name} ${path} ${options.join(' ')} -o json`));
      return [await answer(drive[device]), await answer(target[device])];
    };

    for (const [command, device] of [
      ['id-ctrl', 'controller'],
      ['id-ns', 'block'],
      ['smart-log', 'controller'],
      ['effects-log --csi=0', 'controller'],
      ['fw-log', 'controller'],
      ['ns-descs', 'block'],
    ] as const) {
      test(`${command}: fields that differ, each with its reason`, async (t) => {
        const [ours, theirs] = await both(command, device);
        for (const line of explain(command, ours, theirs)) t.diagnostic(line);
      });
    }

    test('get-feature: features that differ, each with its reason', async (t) => {
      const values = async (path: string): Promise<Json> => {
        const printed = await rig.guest.output(`
          for fid in $(seq ${FEATURE_COUNT}); do echo "$fid $(nvme get-feature ${path} -f $fid 2>&1 | head -1)"; done`);
        return Object.fromEntries(
          printed
            .trim()
            .split('\n')
            .map((line) => [line.split(' ')[0] as string, line.slice(line.indexOf(' ') + 1)]),
        );
      };
      const [ours, theirs] = [await values(drive.controller), await values(target.controller)];
      for (const line of explain('get-feature', ours, theirs)) t.diagnostic(line);
    });
  });
}

/** Fields of an answer by name. What stands under the device's name or a command set's is taken out of it. */
function flat(answer: Json): Json {
  const fields: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(answer)) {
    if (key === 'ns-descs') (value as unknown[]).forEach((item, i) => (fields[`[${i}]`] = item));
    else if (/^(nvme\d+|\d+)$/.test(key)) Object.assign(fields, flat(value as Json));
    else if (key.endsWith('_cmd_set'))
      for (const [name, bits] of Object.entries(value as Json)) fields[`${key} ${name}`] = bits;
    else fields[key] = value;
  }
  return fields;
}

/** One line for each difference. */
function explain(command: string, ours: Json, theirs: Json): string[] {
  const reasons = differences[command] ?? {};
  const text = (value: unknown): string => (value === undefined ? 'none' : JSON.stringify(value).slice(0, 60));
  const names = [...new Set([...Object.keys(ours), ...Object.keys(theirs)])];
  const different = names.filter((name) => JSON.stringify(ours[name]) !== JSON.stringify(theirs[name]));
  assert.deepEqual(
    different
      .filter((name) => reasons[name] === undefined)
      .map((name) => `${name}: ${text(ours[name])}, nvmet ${text(theirs[name])}`),
    [],
    `differences of ${command} without a reason`,
  );
  return different.map(
    (name) => `${command} ${name}: ${text(ours[name])}, nvmet ${text(theirs[name])}: ${reasons[name]}`,
  );
}
