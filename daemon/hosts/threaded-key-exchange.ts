import { Worker } from 'node:worker_threads';
import { assert } from '../base/assert.ts';
import { DriveError } from '../base/errors.ts';
import type { DhKeyPair, KeyExchange, KeyExchangeGroup } from './chap-crypto.ts';
import type { KeyExchangeRequest, KeyExchangeResult } from './key-exchange-worker.ts';

interface Waiter {
  resolve(result: KeyExchangeResult): void;
  reject(error: Error): void;
}

/**
 * Diffie-Hellman on one thread, so that hosts that come and go take no time of those that work. It starts with the first
 * request. A flood of requests makes authentications slow and nothing else.
 */
export class ThreadedKeyExchange implements KeyExchange {
  readonly #waiters: Waiter[] = [];
  #worker: Worker | undefined;
  #isClosed = false;

  async generate(group: KeyExchangeGroup): Promise<DhKeyPair> {
    const result = await this.#ask({ group, agree: undefined });
    assert('publicKey' in result, 'a request for keys is answered by keys');
    return result;
  }

  async agree(group: KeyExchangeGroup, privateKey: Uint8Array, peerValue: Uint8Array): Promise<Uint8Array | undefined> {
    const result = await this.#ask({ group, agree: { privateKey, peerValue } });
    assert('sharedSecret' in result, 'a request for a secret is answered by one');
    return result.sharedSecret;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#worker?.terminate();
    for (const { reject } of this.#waiters.splice(0)) reject(new DriveError('aborted', 'the drive stops'));
  }

  #ask(request: KeyExchangeRequest): Promise<KeyExchangeResult> {
    if (this.#isClosed) return Promise.reject(new DriveError('aborted', 'the drive stops'));
    this.#worker ??= this.#start();
    const worker = this.#worker;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      worker.postMessage(request);
    });
  }

  #start(): Worker {
    const worker = new Worker(new URL('./key-exchange-worker.js', import.meta.url), { name: 'key-exchange' });
    worker.on('message', (result: KeyExchangeResult) => this.#waiters.shift()?.resolve(result));
    worker.on('error', (error: Error) => {
      this.#worker = undefined;
      for (const { reject } of this.#waiters.splice(0)) reject(error);
    });
    // It keeps no process alive that has nothing else to do.
    worker.unref();
    return worker;
  }
}
