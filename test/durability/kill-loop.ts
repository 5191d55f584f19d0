/** A real daemon, killed again and again while clients work on it, and what they find each time. */
import assert from 'node:assert/strict';
import { DriveClient, DriveCommandError, DriveDisconnectedError, locateDrive } from '../../client/index.ts';
import { createSeededRandom, type Random } from '../../daemon/base/random.ts';
import { DaemonProcess } from '../tools/daemon-process.ts';
import { skipDirect } from '../nand/direct-file.ts';
import { BlockLane, type Lane, SequenceLane } from './kill-lanes.ts';

export interface KillLoopOptions {
  /** Processes killed. */
  readonly kills: number;
  readonly seed: number;
  readonly onProgress?: (counts: KillCounts) => void;
}

export const killKinds = ['at work', 'while it starts', 'while it stops'] as const;
type KillKind = (typeof killKinds)[number];

export interface KillCounts {
  readonly kills: Record<KillKind, number>;
  cleanStops: number;
  /** Answered. */
  commands: number;
  flushes: number;
  verifications: number;
  readonly startMs: number[];
}

const CLIENTS = 4;
/** Work between two kills. */
const WORK_MS_MAX = 500;
const START_MS_MAX = 600;
const STOP_MS_MAX = 60;
const FLUSH_INTERVAL_MS = 40;
const QUEUES = 2;

export const killCount = ({ kills }: KillCounts): number => killKinds.reduce((sum, kind) => sum + kills[kind], 0);

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class KillLoop {
  readonly counts: KillCounts = {
    kills: { 'at work': 0, 'while it starts': 0, 'while it stops': 0 },
    cleanStops: 0,
    commands: 0,
    flushes: 0,
    verifications: 0,
    startMs: [],
  };
  readonly #options: KillLoopOptions;
  readonly #random: Random;
  readonly #daemon = new DaemonProcess('16MiB');
  #startCount = 0;
  /** The daemon that runs, or ran last, gives pages to the page cache, and keeps none to itself. */
  #isMapped = true;
  /** [client] -> its lanes. The last client has turned its write cache off. */
  readonly #lanes: readonly (readonly Lane[])[];

  constructor(options: KillLoopOptions) {
    this.#options = options;
    this.#random = createSeededRandom(options.seed);
    this.#lanes = Array.from({ length: CLIENTS }, (_, index) => {
      const lane = { index, isWriteThrough: index === CLIENTS - 1, arePagesKept: () => this.#isMapped };
      const random = (part: number): Random => createSeededRandom(options.seed * 1000 + index * 10 + part);
      return [new BlockLane(lane, random(0)), new SequenceLane(lane, random(1))];
    });
  }

  get folder(): string {
    return this.#daemon.folder;
  }

  /** Of the next daemon: by turns, so that each finds what another has left. */
  #io(): string[] {
    this.#isMapped = this.#startCount++ % 2 === 1 || skipDirect !== false;
    return ['--io', this.#isMapped ? 'mapped' : 'direct'];
  }

  /** Throws as soon as a promise is broken. */
  async run(): Promise<void> {
    while (killCount(this.counts) < this.#options.kills) {
      await this.#start();
      const clients = await this.#connect();
      try {
        await Promise.all(this.#lanes.map((lanes, i) => this.#verify(lanes, clients[i]!)));
        await this.#workUntilEnd(clients);
      } finally {
        await Promise.all(clients.map((client) => client.close()));
      }
      this.#options.onProgress?.(this.counts);
    }
    await this.#start();
    const clients = await this.#connect();
    await Promise.all(this.#lanes.map((lanes, i) => this.#verify(lanes, clients[i]!)));
    await Promise.all(clients.map((client) => client.close()));
  }

  /** Kills the daemon if it runs, and removes the drive. */
  remove(): Promise<void> {
    return this.#daemon.remove();
  }

  #below(end: number): number {
    return this.#random.nextUint32() % end;
  }

  /** Now and then it is killed while it starts, and started again. */
  async #start(): Promise<void> {
    while (this.#below(4) === 0) {
      this.#daemon.launch(this.#io());
      await sleep(this.#below(START_MS_MAX));
      await this.#daemon.end('SIGKILL');
      this.counts.kills['while it starts']++;
    }
    const beginMs = performance.now();
    await this.#daemon.start(this.#io());
    this.counts.startMs.push(performance.now() - beginMs);
  }

  async #connect(): Promise<DriveClient[]> {
    const { drive } = locateDrive(this.#daemon.folder);
    assert.ok(drive !== undefined);
    const address = `unix:${drive.nvmeSocket}`;
    const clients = await Promise.all(this.#lanes.map(() => DriveClient.connect(address, { ioQueueCount: QUEUES })));
    await clients.at(-1)!.controller.setFeature('volatileWriteCache', 0);
    return clients;
  }

  async #verify(lanes: readonly Lane[], client: DriveClient): Promise<void> {
    for (const lane of lanes) await lane.verify(client);
    this.counts.verifications++;
  }

  async #workUntilEnd(clients: readonly DriveClient[]): Promise<void> {
    const work = this.#lanes.flatMap((lanes, i) => lanes.map((lane) => this.#work(clients[i]!, lane)));
    const flushes = this.#flush(clients[0]!);
    await sleep(this.#below(WORK_MS_MAX));
    await this.#end();
    await Promise.all([...work, flushes]);
  }

  async #end(): Promise<void> {
    const roll = this.#below(100);
    if (roll < 75) {
      this.counts.kills['at work']++;
      await this.#daemon.end('SIGKILL');
      return;
    }
    if (roll < 90) {
      const stopped = this.#daemon.end('SIGTERM');
      const isStopped = await Promise.race([
        stopped.then(() => true),
        sleep(this.#below(STOP_MS_MAX)).then(() => false),
      ]);
      if (!isStopped) {
        this.#daemon.kill();
        this.counts.kills['while it stops']++;
      }
      await stopped;
      return;
    }
    assert.equal(await this.#daemon.end('SIGTERM'), 0, `a stop fails: ${this.#daemon.said}`);
    this.counts.cleanStops++;
    // What was answered is there after a stop, flushed or not.
    for (const lane of this.#lanes.flat()) lane.beginFlush()();
  }

  async #work(client: DriveClient, lane: Lane): Promise<void> {
    await untilDisconnected(async () => {
      for (;;) {
        await lane.step(client);
        this.counts.commands++;
      }
    });
  }

  async #flush(client: DriveClient): Promise<void> {
    await untilDisconnected(async () => {
      for (;;) {
        const answered = this.#lanes.flat().map((lane) => lane.beginFlush());
        await client.flush();
        for (const durable of answered) durable();
        this.counts.flushes++;
        await sleep(this.#below(FLUSH_INTERVAL_MS));
      }
    });
  }
}

async function untilDisconnected(work: () => Promise<never>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const isEnd =
      error instanceof DriveDisconnectedError || (error instanceof DriveCommandError && error.code === 'aborted');
    if (!isEnd) throw error;
  }
}
