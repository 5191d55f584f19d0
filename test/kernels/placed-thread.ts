/** A thread that says who it is, and stays. */
import { parentPort } from 'node:worker_threads';
import { threadPlacement } from '../../daemon/kernels/native/thread-placement.ts';

parentPort?.postMessage(threadPlacement()?.threadId());
parentPort?.on('message', () => undefined);
