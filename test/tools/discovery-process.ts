/** A discovery service in a process of its own, on a port of 127.0.0.1. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { startAttndrive } from './command-line.ts';

const READY_TIMEOUT_MS = 20_000;

export class DiscoveryProcess {
  #child: ChildProcess | undefined;
  /** `0` until it has run: any free port, and the same one from then on. */
  port = '0';
  said = '';

  async start(more: readonly string[] = []): Promise<void> {
    const listen = ['--tcp', `127.0.0.1:${this.port}`, '--log-level', 'warn'];
    const child = startAttndrive(['discovery', ...listen, ...more]);
    this.#child = child;
    let printed = '';
    child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (this.said += chunk.toString()));
    const deadlineMs = performance.now() + READY_TIMEOUT_MS;
    for (;;) {
      const [, port] = /^attndrive discovery ready: tcp:127\.0\.0\.1:(\d+)$/m.exec(printed) ?? [];
      if (port !== undefined) {
        this.port = port;
        return;
      }
      assert.ok(child.exitCode === null && child.signalCode === null, `the service ended: ${this.said}`);
      assert.ok(performance.now() < deadlineMs, `the service is not ready: ${this.said}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  get address(): string {
    return `tcp:127.0.0.1:${this.port}`;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> {
    const child = this.#child;
    if (child === undefined) return null;
    this.#child = undefined;
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill(signal);
      await ended;
    }
    return child.exitCode;
  }
}
