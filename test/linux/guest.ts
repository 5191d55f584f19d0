/** A Linux machine in QEMU under software emulation: a test says what it runs, and gets what that printed. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { KernelSeries, Manifest } from './debian-packages.ts';
import { buildImage, firmwareFolders, type GuestImage, libraryFolders } from './initramfs.ts';

/** Where the guest reaches what listens on this machine's loopback. */
export const HOST_ADDRESS = '10.0.2.2';

const CPU_COUNT = 2;
const MEMORY_MIB = 640;
/** Emulation is slow, and slower beside other work: these only end what will never come. */
const BOOT_TIMEOUT_MS = 180_000;
const COMMAND_TIMEOUT_MS = 120_000;
const CONSOLE_CHARACTERS_MAX = 20_000;

export interface GuestResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface BackgroundJob {
  isRunning(): Promise<boolean>;
  /** Waits for its end. */
  end(timeoutMs?: number): Promise<{ readonly status: number; readonly output: string }>;
}

interface Waiting {
  readonly id: number;
  readonly script: string;
  readonly resolve: (result: GuestResult & { bytes: Buffer }) => void;
  readonly reject: (error: Error) => void;
}

export class Guest {
  readonly release: string;
  readonly #folder: string;
  readonly #server: Server;
  readonly #process: ChildProcess;
  #port: Socket | undefined;
  #received = Buffer.alloc(0);
  #ready = false;
  #console = '';
  #end: Error | undefined;
  #nextId = 1;
  readonly #waiting: Waiting[] = [];
  #onReady: { resolve: () => void; reject: (error: Error) => void } | undefined;

  /** Boots a kernel and waits until it takes commands. */
  static async boot(manifest: Manifest, series: KernelSeries): Promise<Guest> {
    const init = readFileSync(new URL('../../../test/linux/init.sh', import.meta.url), 'utf8');
    const image = buildImage(manifest, series, init);
    const folder = mkdtempSync(join(tmpdir(), 'attndrive-guest-'));
    const server = createServer();
    server.listen(join(folder, 'agent.sock'));
    await once(server, 'listening');
    const guest = new Guest(manifest, image, folder, server);
    try {
      await guest.#untilReady();
      return guest;
    } catch (error) {
      await guest.stop();
      throw error;
    }
  }

  private constructor({ tools }: Manifest, image: GuestImage, folder: string, server: Server) {
    this.release = image.release;
    this.#folder = folder;
    this.#server = server;
    server.once('connection', (socket) => this.#attach(socket));
    writeFileSync(join(folder, 'initramfs'), image.initramfs);
    const args = [
      ...['-accel', 'tcg,thread=multi', '-machine', 'q35', '-cpu', 'max'],
      ...['-smp', String(CPU_COUNT), '-m', String(MEMORY_MIB), '-nodefaults', '-no-reboot', '-display', 'none'],
      ...firmwareFolders(tools).flatMap((path) => ['-L', path]),
      ...['-kernel', image.kernelPath, '-initrd', join(folder, 'initramfs')],
      ...['-append', 'console=ttyS0 panic=-1 loglevel=5 random.trust_cpu=on'],
      ...['-serial', 'stdio', '-device', 'virtio-serial-pci'],
      ...['-chardev', `socket,id=agent,path=${join(folder, 'agent.sock')}`],
      ...['-device', 'virtserialport,chardev=agent,name=agent'],
      ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
    ];
    this.#process = spawn(join(tools, 'usr/bin/qemu-system-x86_64'), args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LD_LIBRARY_PATH: libraryFolders(tools).join(':') },
    });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.#console = (this.#console + chunk.toString()).slice(-CONSOLE_CHARACTERS_MAX);
      });
    }
    this.#process.once('error', (error) => this.#fail(`QEMU can not run: ${error.message}`));
    this.#process.once('exit', (status, signal) => this.#fail(`QEMU ended: ${status ?? signal}`));
  }

  /** What the kernel and QEMU said. */
  get console(): string {
    return this.#console;
  }

  /** Runs a shell script; resolves when it has ended, whatever its status. Scripts run one after another. */
  async run(script: string, timeoutMs = COMMAND_TIMEOUT_MS): Promise<GuestResult & { readonly bytes: Buffer }> {
    if (this.#end !== undefined) throw this.#end;
    const id = this.#nextId++;
    const timer = setTimeout(() => this.#fail(`no end after ${timeoutMs} ms: ${script}`), timeoutMs);
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.push({ id, script, resolve, reject });
        this.#port?.write(`${id} ${Buffer.from(script).toString('base64')}\n`);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Runs a script that must succeed; returns its standard output. */
  async output(script: string, timeoutMs?: number): Promise<string> {
    const { status, stdout, stderr } = await this.run(script, timeoutMs);
    assert.equal(status, 0, `${script}: status ${status}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Standard output as JSON. */
  async json<T>(script: string): Promise<T> {
    return JSON.parse(await this.output(script)) as T;
  }

  /** Standard output as it is. */
  async bytes(script: string): Promise<Buffer> {
    const { status, stderr, bytes } = await this.run(script);
    assert.equal(status, 0, `${script}: status ${status}\n${stderr}`);
    return bytes;
  }

  async writeFile(path: string, bytes: Uint8Array): Promise<void> {
    await this.output(`echo ${Buffer.from(bytes).toString('base64')} | base64 -d >${path}`);
  }

  /** Runs a script beside others; one at a time. */
  async background(script: string): Promise<BackgroundJob> {
    await this.output('rm -f /tmp/job.status');
    await this.output(`{ (\n${script}\n) >/tmp/job.output 2>&1; echo $? >/tmp/job.status; } &`);
    return {
      isRunning: async () => (await this.run('[ -e /tmp/job.status ]')).status !== 0,
      end: async (timeoutMs) => {
        const status = await this.output(
          'until [ -e /tmp/job.status ]; do sleep 0.2; done; cat /tmp/job.status',
          timeoutMs,
        );
        return { status: Number(status), output: await this.output('cat /tmp/job.output') };
      },
    };
  }

  /** Begins to collect what the kernel tells of its devices. */
  async startUevents(): Promise<void> {
    await this.output(`[ -e /tmp/uevents.pid ] && kill $(cat /tmp/uevents.pid); : >/tmp/uevents
      (uevent env >/tmp/uevents 2>&1 & echo $! >/tmp/uevents.pid)`);
  }

  /** Waits for a line among them. */
  async untilUevent(pattern: RegExp): Promise<void> {
    while (!pattern.test(await this.output('sleep 0.1; cat /tmp/uevents'))) continue;
  }

  /** Loads a module that is not loaded at start, with what it depends on. */
  async loadModule(name: string): Promise<void> {
    await this.output(
      `for m in $(cat /etc/modules-${name}); do grep -q "^$(basename $m .ko) " /proc/modules || insmod $m; done`,
    );
  }

  /** Ends the machine, as by pulling its plug. */
  async stop(): Promise<void> {
    const { exitCode, signalCode } = this.#process;
    if (exitCode === null && signalCode === null && this.#process.pid !== undefined) {
      const ended = once(this.#process, 'exit');
      this.#process.kill('SIGKILL');
      await ended;
    }
    this.#port?.destroy();
    this.#server.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #attach(socket: Socket): void {
    this.#port = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      while (this.#takeLine()) continue;
    });
    socket.on('error', () => undefined);
  }

  async #untilReady(): Promise<void> {
    const timer = setTimeout(() => this.#fail(`the guest does not boot in ${BOOT_TIMEOUT_MS} ms`), BOOT_TIMEOUT_MS);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#onReady = { resolve, reject };
        if (this.#end !== undefined) reject(this.#end);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** One answer of the agent. False: it is not there in full yet. */
  #takeLine(): boolean {
    const lineEnd = this.#received.indexOf('\n');
    if (lineEnd < 0) return false;
    const line = this.#received.toString('latin1', 0, lineEnd);
    if (!this.#ready) {
      this.#ready = line === 'ready';
      this.#received = this.#received.subarray(lineEnd + 1);
      if (this.#ready) this.#onReady?.resolve();
      return true;
    }
    const [id, status, outBytes, errBytes] = line.split(' ').map(Number) as [number, number, number, number];
    const start = lineEnd + 1;
    if (this.#received.length < start + outBytes + errBytes) return false;
    const bytes = Buffer.from(this.#received.subarray(start, start + outBytes));
    const stderr = this.#received.toString('utf8', start + outBytes, start + outBytes + errBytes);
    this.#received = this.#received.subarray(start + outBytes + errBytes);
    const waiting = this.#waiting.shift();
    assert.equal(waiting?.id, id, 'answers come in order');
    waiting?.resolve({ status, stdout: bytes.toString(), stderr, bytes });
    return true;
  }

  #fail(reason: string): void {
    if (this.#end !== undefined) return;
    this.#end = new Error(`${reason}\nconsole of the guest (${this.release}):\n${this.#console.slice(-4000)}`);
    this.#onReady?.reject(this.#end);
    for (const { reject } of this.#waiting.splice(0)) reject(this.#end);
  }
}
