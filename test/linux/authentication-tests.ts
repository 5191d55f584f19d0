/** `nvme connect --dhchap-secret`: who may connect, and how host and drive prove to each other who they are. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { AdminClient } from '../../client/index.ts';
import { type ChapHash, chapHashNames, type DhGroup, dhGroupNames } from '../../spec/authentication.ts';
import { subsystemNqn } from '../../spec/fabrics.ts';
import { runningDrive } from '../e2e/served-drive.ts';
import { attndrive } from '../tools/command-line.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { HOST_ADDRESS } from './guest.ts';
import type { LinuxRig } from './linux-rig.ts';

interface HostEntry {
  readonly nqn?: string;
  readonly secret?: string;
  readonly controllerSecret?: string;
  readonly hashes?: readonly ChapHash[];
  readonly dhGroups?: readonly DhGroup[];
}

const OTHER_HOST = 'nqn.2014-08.org.nvmexpress:uuid:6e1c4b1a-0000-4000-8000-00000000beef';
const IO_QUEUE_COUNT = 2;
const CONNECT_TIMEOUT_MS = 240_000;

/** A drive that lets in only whom its hosts file names. */
class GuardedDrive {
  readonly daemon = new DaemonProcess('16MiB');
  readonly folder = mkdtempSync(join(tmpdir(), 'attndrive-hosts-'));
  #port = '';
  #readCount = 0;
  nqn = '';

  async start(entry: HostEntry): Promise<void> {
    this.write('hosts.json', JSON.stringify({ hosts: [entry] }));
    const hosts = join(this.folder, 'hosts.json');
    await this.daemon.start(['--tcp', '127.0.0.1:0', '--hosts', hosts, '--log-level', 'info']);
    const { tcp, serial } = runningDrive(this.daemon);
    this.#port = tcp.slice(tcp.lastIndexOf(':') + 1);
    this.nqn = subsystemNqn(serial);
  }

  write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text, { mode: 0o600 });
  }

  /** Has the daemon read the hosts file again. */
  async setHost(entry: HostEntry): Promise<void> {
    this.write('hosts.json', JSON.stringify({ hosts: [entry] }));
    process.kill(runningDrive(this.daemon).processId, 'SIGHUP');
    this.#readCount++;
    while (this.daemon.said.split('hosts read again').length <= this.#readCount) {
      assert.ok(!this.daemon.said.includes('hosts not read again'), this.daemon.said);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  get address(): string {
    return `-t tcp -a ${HOST_ADDRESS} -s ${this.#port} -n ${this.nqn}`;
  }

  /** Authentications of queues by how they ended. */
  async ended(result: string): Promise<number> {
    const admin = new AdminClient(`unix:${runningDrive(this.daemon).adminSocket}`);
    try {
      const text = await admin.metrics();
      return Number(
        new RegExp(`^attndrive_authentications_total\\{result="${result}"\\} (\\d+)`, 'm').exec(text)?.[1] ?? 0,
      );
    } finally {
      await admin.close();
    }
  }

  async remove(): Promise<void> {
    await this.daemon.remove();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export function authenticationTests(rig: LinuxRig): void {
  describe('who may connect', () => {
    const drive = new GuardedDrive();
    let nqn = '';
    let hostSecret = '';
    let controllerSecret = '';
    const hasAuthentication = rig.series === '6.12';
    const skip = hasAuthentication ? false : 'the kernel is built without in-band authentication';

    const connect = (options: string) => rig.guest.run(`nvme connect ${drive.address} ${options}`, CONNECT_TIMEOUT_MS);
    const refused = async (options: string): Promise<void> => {
      const { status, stdout, stderr } = await connect(options);
      assert.notEqual(status, 0, `connected with ${options}: ${stdout}${stderr}`);
    };
    /** Connects with blocks written and read, and returns how many queues have authenticated. */
    const connected = async (options: string): Promise<number> => {
      let before = await drive.ended('succeeded');
      let result = await connect(`-i ${IO_QUEUE_COUNT} ${options}`);
      const { stdout: log } = await rig.guest.run('dmesg | tail -20');
      // The kernel waits 60 s for itself, too: emulated on a busy machine, the largest groups take it longer at times.
      if (result.status !== 0 && /Fabrics Cmd\) QID \d+ timeout/.test(log)) {
        before = await drive.ended('succeeded');
        result = await connect(`-i ${IO_QUEUE_COUNT} ${options}`);
      }
      assert.equal(result.status, 0, `${options}: ${result.stdout}${result.stderr}\n${log}`);
      const { block } = await rig.devices(drive.nqn);
      await rig.guest.output(`dd if=/dev/urandom of=${block} bs=4096 count=4 oflag=direct 2>/dev/null`);
      return (await drive.ended('succeeded')) - before;
    };
    const disconnect = () => rig.guest.output(`nvme disconnect -n ${drive.nqn}`);
    const queueCount = 1 + IO_QUEUE_COUNT;

    before(async () => {
      nqn = (await rig.guest.output('cat /etc/nvme/hostnqn')).trim();
      const generated = await rig.guest.output(`nvme gen-dhchap-key --hmac=1 --nqn=${nqn}`);
      hostSecret = generated.trim();
      controllerSecret = attndrive(['gen-dhchap-key', '--hmac', '3']).stdout.trim();
      drive.write('host.key', `${hostSecret}\n`);
      drive.write('drive.key', controllerSecret);
      await drive.start({ nqn });
    });
    after(() => drive.remove());

    test('a host that is listed, and none that is not', async () => {
      assert.equal(await connected(''), 0);
      await disconnect();
      await refused(`--hostnqn=${OTHER_HOST} --hostid=6e1c4b1a-0000-4000-8000-00000000beef`);
      assert.match(await rig.guest.output('dmesg | tail -20'), /not allowed, hostnqn: .*beef/);
    });

    test('a kernel without authentication can not connect where it is wanted', {
      skip: hasAuthentication,
    }, async () => {
      await drive.setHost({ nqn, secret: 'host.key' });
      await refused('');
    });

    test('secrets that nvme-cli and attndrive make, each checked by the other', { skip }, async () => {
      for (const hmac of [0, 1, 2, 3]) {
        const { stdout } = attndrive(['gen-dhchap-key', '--hmac', String(hmac)]);
        assert.match(await rig.guest.output(`nvme check-dhchap-key --key=${stdout.trim()}`), /Key is valid/);
      }
    });

    for (const hash of chapHashNames) {
      test(`${hash}, without a Diffie-Hellman group`, { skip }, async () => {
        await drive.setHost({ nqn, secret: 'host.key', hashes: [hash], dhGroups: ['null'] });
        assert.equal(await connected(`--dhchap-secret=${hostSecret}`), queueCount);
        await disconnect();
      });
    }

    for (const [index, group] of dhGroupNames.filter((name) => name !== 'null').entries()) {
      const hash = chapHashNames[index % chapHashNames.length] as ChapHash;
      test(`${group} with ${hash}, both ways`, { skip, timeout: 3 * CONNECT_TIMEOUT_MS }, async () => {
        const secrets = { secret: 'host.key', controllerSecret: 'drive.key' };
        await drive.setHost({ nqn, ...secrets, hashes: [hash], dhGroups: [group] });
        const options = `--dhchap-secret=${hostSecret} --dhchap-ctrl-secret=${controllerSecret}`;
        assert.equal(await connected(options), queueCount);
        await disconnect();
      });
    }

    test('no secret, a wrong one, and a drive that can not prove itself are refused', { skip }, async () => {
      await drive.setHost({ nqn, secret: 'host.key' });
      const wrong = (await rig.guest.output(`nvme gen-dhchap-key --hmac=1 --nqn=${nqn}`)).trim();
      const failedBefore = await drive.ended('failed');
      await refused('');
      await refused(`--dhchap-secret=${wrong}`);
      assert.equal(await drive.ended('failed'), failedBefore + 1);
      await refused(`--dhchap-secret=${hostSecret} --dhchap-ctrl-secret=${controllerSecret}`);
      await drive.setHost({ nqn, secret: 'host.key', controllerSecret: 'drive.key' });
      const refusedBefore = await drive.ended('refusedByHost');
      await refused(`--dhchap-secret=${hostSecret} --dhchap-ctrl-secret=${wrong}`);
      assert.equal(await drive.ended('refusedByHost'), refusedBefore + 1);
    });

    test('a host authenticates again, with a new secret, while it works', { skip }, async () => {
      await drive.setHost({ nqn, secret: 'host.key' });
      assert.equal(await connected(`--dhchap-secret=${hostSecret}`), queueCount);
      const { controller, block } = await rig.devices(drive.nqn);
      const fresh = (await rig.guest.output(`nvme gen-dhchap-key --hmac=2 --nqn=${nqn}`)).trim();
      drive.write('fresh.key', fresh);
      await drive.setHost({ nqn, secret: 'fresh.key' });
      const before = await drive.ended('succeeded');
      await rig.guest.output(`echo -n '${fresh}' >/sys/class/nvme/${controller.replace('/dev/', '')}/dhchap_secret`);
      while ((await drive.ended('succeeded')) < before + queueCount) await rig.guest.output('sleep 0.2');
      await rig.guest.output(`dd if=/dev/urandom of=${block} bs=4096 count=4 oflag=direct 2>/dev/null`);
      await disconnect();
    });
  });
}
