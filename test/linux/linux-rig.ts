/** A drive in a daemon of its own, and a Linux machine that reaches it over TCP. */
import assert from 'node:assert/strict';
import { DriveClient, type ConnectOptions } from '../../client/index.ts';
import { subsystemNqn } from '../../spec/fabrics.ts';
import { runningDrive } from '../e2e/served-drive.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { DiscoveryProcess } from '../tools/discovery-process.ts';
import { type KernelSeries, preparePackages } from './debian-packages.ts';
import { Guest, HOST_ADDRESS } from './guest.ts';

/** What a connected subsystem is called in the guest. */
export interface GuestDevices {
  /** `/dev/nvme0`: admin commands. */
  readonly controller: string;
  /** `/dev/nvme0n1`: the block device. */
  readonly block: string;
  /** `/dev/ng0n2`: commands of the KV-cache namespace. */
  readonly kv: string;
}

const DEVICES_TIMEOUT_SECONDS = 60;

export class LinuxRig {
  readonly series: KernelSeries;
  readonly daemon = new DaemonProcess('64MiB', '256MiB');
  /** Knows the daemon, which registers with it. */
  readonly discovery = new DiscoveryProcess();
  #guest: Guest | undefined;
  #port = '0';
  #nqn = '';

  constructor(series: KernelSeries) {
    this.series = series;
  }

  get guest(): Guest {
    assert.ok(this.#guest, 'the guest runs');
    return this.#guest;
  }

  get nqn(): string {
    return this.#nqn;
  }

  get port(): string {
    return this.#port;
  }

  async start(): Promise<void> {
    const booted = Guest.boot(preparePackages(), this.series);
    try {
      await this.discovery.start();
      await this.startDaemon();
    } finally {
      this.#guest = await booted;
    }
  }

  /** The first start takes a free port, and every later one the same. */
  async startDaemon(): Promise<void> {
    await this.daemon.start(['--tcp', `127.0.0.1:${this.#port}`, ...this.registration]);
    const { tcp, serial } = runningDrive(this.daemon);
    this.#port = tcp.slice(tcp.lastIndexOf(':') + 1);
    this.#nqn = subsystemNqn(serial);
  }

  /** Arguments of a daemon that the guest is to find. */
  get registration(): string[] {
    return ['--advertise', HOST_ADDRESS, '--discovery', `127.0.0.1:${this.discovery.port}`];
  }

  async stop(): Promise<void> {
    await this.#guest?.stop();
    await this.discovery.end('SIGKILL');
    await this.daemon.remove();
  }

  /** Arguments of nvme-cli that name the drive's address. */
  get address(): string {
    return `-t tcp -a ${HOST_ADDRESS} -s ${this.#port}`;
  }

  /** `nvme connect`, and waits for the namespaces' devices. */
  async connect(options = ''): Promise<GuestDevices> {
    await this.guest.output(`nvme connect ${this.address} -n ${this.#nqn} ${options}`);
    return this.devices();
  }

  /** Devices of a drive, once the kernel has made them. */
  async devices(nqn = this.#nqn): Promise<GuestDevices> {
    const [controller, block, kv] = await this.#devices(nqn, '[ "$block" ] && [ "$kv" ]');
    return { controller, block, kv };
  }

  /** Devices of a subsystem that has namespace 1 alone. */
  async blockDevices(nqn: string): Promise<Omit<GuestDevices, 'kv'>> {
    const [controller, block] = await this.#devices(nqn, '[ "$block" ]');
    return { controller, block };
  }

  /** Numbers in device names say in which order the kernel met the namespaces, not their ids. */
  async #devices(nqn: string, isComplete: string): Promise<[string, string, string]> {
    const found = await this.guest.output(`
      for i in $(seq ${DEVICES_TIMEOUT_SECONDS}0); do
        for s in /sys/class/nvme-subsystem/nvme*; do
          [ "$(cat $s/subsysnqn 2>/dev/null)" = ${nqn} ] || continue
          c=$(basename $(ls -d $s/nvme*[0-9] | grep '/nvme[0-9]*$' | head -1))
          block= kv=
          for d in /dev/nvme\${s##*nvme-subsys}n* /dev/ng\${s##*nvme-subsys}n*; do
            case $d:$(nvme get-ns-id $d 2>/dev/null | sed 's/.*://') in
              /dev/nvme*:1) block=$d ;;
              /dev/ng*:2) kv=$d ;;
            esac
          done
          ${isComplete} && echo /dev/$c $block $kv && exit 0
        done
        sleep 0.1
      done
      exit 1`);
    return found.trim().split(' ') as [string, string, string];
  }

  async disconnect(): Promise<void> {
    await this.guest.output(`nvme disconnect -n ${this.#nqn}`);
  }

  /** The SDK, beside Linux, on the drive's Unix socket. */
  client(options: ConnectOptions = {}): Promise<DriveClient> {
    return DriveClient.connect(`unix:${runningDrive(this.daemon).nvmeSocket}`, options);
  }
}
