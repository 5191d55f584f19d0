/** A drive in a temporary folder, whose daemon a test starts, stops and kills as it likes. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { locateDrive } from '../../client/index.ts';
import { attndrive, startAttndrive } from './command-line.ts';

const READY_TIMEOUT_MS = 20_000;

export class DaemonProcess {
  readonly folder: string;
  readonly runtimeFolder: string;
  readonly #parent: string;
  #child: ChildProcess | undefined;
  /** What the running daemon said on standard error. */
  said = '';

  /** Formats a drive of 4 KiB pages; `more` options of format. */
  constructor(kvCapacity = '64MiB', blockCapacity = '16MiB', more: readonly string[] = []) {
    this.#parent = mkdtempSync(join(tmpdir(), 'attndrive-test-'));
    this.folder = join(this.#parent, 'drive');
    this.runtimeFolder = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'attndrive-test-'));
    const capacities = ['--block-capacity', blockCapacity, '--kv-capacity', kvCapacity, '--page-size', '4KiB'];
    const { status, stderr } = attndrive(['format', this.folder, ...capacities, ...more]);
    assert.equal(status, 0, stderr);
  }

  /** Starts the daemon and waits until it says where it listens. */
  async start(more: readonly string[] = []): Promise<void> {
    this.launch(more);
    await this.ready();
  }

  /** Starts the daemon, and no more. */
  launch(more: readonly string[] = []): void {
    const listen = ['--tcp', 'off', '--http', 'off', '--runtime-dir', this.runtimeFolder];
    const child = startAttndrive(['start', this.folder, ...listen, '--log-level', 'warn', ...more]);
    this.#child = child;
    this.said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      this.said += chunk.toString();
    });
  }

  async ready(): Promise<void> {
    const child = this.#child;
    assert.ok(child !== undefined, 'a daemon was launched');
    const deadlineMs = performance.now() + READY_TIMEOUT_MS;
    while (!this.#isReady()) {
      assert.ok(child.exitCode === null && child.signalCode === null, `the daemon ended: ${this.said}`);
      assert.ok(performance.now() < deadlineMs, `the daemon is not ready: ${this.said}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Waits until the daemon has said something on standard error. */
  async says(what: RegExp): Promise<void> {
    const deadlineMs = performance.now() + READY_TIMEOUT_MS;
    while (!what.test(this.said)) {
      assert.ok(performance.now() < deadlineMs, `the daemon did not say ${what}: ${this.said}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  #isReady(): boolean {
    try {
      return locateDrive(this.folder).drive?.processId === this.#child?.pid;
    } catch {
      return false;
    }
  }

  /** Ends the daemon and waits for its end; returns its exit status. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill(signal);
      await ended;
    }
    this.#child = undefined;
    return child.exitCode;
  }

  /** Without waiting for the end, which somebody else does. */
  kill(): void {
    this.#child?.kill('SIGKILL');
  }

  /** Kills the daemon if it runs, and removes everything. */
  async remove(): Promise<void> {
    await this.end('SIGKILL');
    for (const path of [this.#parent, this.runtimeFolder]) rmSync(path, { recursive: true, force: true });
  }
}
