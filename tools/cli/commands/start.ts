import type { Command } from 'commander';
import { cellsIoNames, logLevels, timingModes, type DaemonOptions } from '../../../daemon/config.ts';
import { gcBounds, placements } from '../../../daemon/ftl/gc-options.ts';
import { verifyPolicies } from '../../../daemon/ftl/verify-policy.ts';
import { victimPolicyNames } from '../../../daemon/ftl/victim-policy.ts';
import { kernelNames, kernelPrecisions } from '../../../daemon/kernels/contract.ts';
import { Option } from 'commander';
import { integerWithin, parseIntervalSeconds, parseSize } from '../quantity.ts';

interface StartOptions {
  tcp?: string;
  http?: string;
  httpName?: string[];
  httpTokenFile?: string;
  httpOpenMetrics?: boolean;
  httpCert?: string;
  httpKey?: string;
  advertise?: string;
  discovery?: string[];
  hosts?: string;
  kernels?: string;
  kernelPrecision?: string;
  workers?: number;
  runtimeDir?: string;
  group?: string;
  bufferSize?: number;
  io?: string;
  cacheSize?: number;
  checkpointInterval?: number;
  verify?: string;
  timing?: string;
  record?: string;
  placement?: string;
  gcPolicy?: string;
  gcChoices?: number;
  gcWindow?: number;
  busyPoll?: number;
  gcStart?: number;
  gcStop?: number;
  scrubInterval?: number;
  allowFaults?: boolean;
  logLevel?: string;
}

const epilogue = `
Without --tcp and --http it listens on 127.0.0.1:4420 (NVMe/TCP) and 127.0.0.1:4480 (HTTP), and always on Unix sockets
in the runtime directory. One line says when it is ready and where; SIGTERM and SIGINT stop it cleanly, SIGHUP makes it
read the hosts file again:
  {"hosts": [{"nqn": "nqn.2014-08.org.nvmexpress:uuid:…", "secret": "host.key", "controllerSecret": "drive.key"}]}

Examples:
  $ attndrive start ./drive
  $ attndrive start ./drive --tcp 0.0.0.0:4420 --http off --hosts /etc/attndrive/hosts.json
  $ attndrive start ./drive --tcp 192.0.2.7:4420 --discovery 192.0.2.1:8009
  $ attndrive start ./drive --tcp :0 --http :0 --kernels wasm --workers 2
  $ attndrive start ./drive --io direct --cache-size 8GiB
  $ attndrive start ./drive --timing enforce --record trace.bin`;

/** Where the drive listens, and who may come. */
const withAccessOptions = (command: Command): Command =>
  command
    .option('--tcp <HOST:PORT|off>', 'NVMe/TCP (default: 127.0.0.1:4420)')
    .option('--http <HOST:PORT|off>', 'control plane and metrics (default: 127.0.0.1:4480)')
    .option('--http-token-file <FILE>', 'token that HTTP over TCP wants (default: none; it then only shows the drive)')
    .option('--http-open-metrics', 'show metrics without the token, too')
    .option('--http-cert <FILE>', 'certificate chain, PEM: HTTP over TCP speaks TLS')
    .option('--http-key <FILE>', 'its private key')
    .option('--http-name <NAME...>', 'names that HTTP clients may call this machine (default: addresses, localhost)')
    .option('--advertise <IP>', 'address that hosts are told to come to (default: the one they came to)')
    .option('--discovery <HOST:PORT...>', 'discovery services to register with (default: none)')
    .option('--hosts <FILE>', 'hosts that may connect, and their secrets (default: none, every host may)');

/** How it comes to flash pages. */
const withPageOptions = (command: Command): Command =>
  command
    .addOption(new Option('--io <HOW>', 'how flash pages are read (default: mapped)').choices(cellsIoNames))
    .option('--cache-size <SIZE>', 'cache of direct I/O, and of kernels that cannot map (default: 256MiB)', parseSize)
    .addOption(
      new Option(
        '--verify <WHEN>',
        'check flash pages once after a start or a program, or at every use (default: first-use)',
      ).choices(verifyPolicies),
    );

const withKernelOptions = (command: Command): Command =>
  command
    .addOption(new Option('--kernels <NAME>', 'attention kernels (default: auto)').choices(['auto', ...kernelNames]))
    .addOption(
      new Option(
        '--kernel-precision <HOW>',
        'exact: float32; close: integers where KV is quantised; fast: fewer bits of queries, too (default: close)',
      ).choices(kernelPrecisions),
    );

export function addStart(program: Command): void {
  const start = program
    .command('start')
    .summary('run a drive in the foreground')
    .description('Runs the drive in DIR in the foreground until it is told to stop.')
    .argument('<DIR>', 'folder made by format');
  withKernelOptions(withPageOptions(withAccessOptions(start)))
    .option('--workers <N>', 'compute workers (default: one per CPU; 0: none)', integerWithin(0, 256))
    .option('--runtime-dir <DIR>', 'parent of the folder for sockets and memory regions; should be tmpfs')
    .option('--group <NAME>', 'group that may use sockets and regions (default: this user only)')
    .option('--buffer-size <SIZE>', 'tail and transfer buffers (default: 512MiB, taken as needed)', parseSize)
    .option(
      '--busy-poll <US>',
      'stay awake for so long once a host was answered, for its next command (default: 50; with one CPU 0)',
      integerWithin(0, 10_000),
    )
    .option(
      '--checkpoint-interval <MS>',
      'longest time without a checkpoint (default: 1000)',
      integerWithin(10, 3_600_000),
    )
    .addOption(
      new Option('--placement <RULE>', 'what is kept apart when it is written (default: lifetime)').choices(placements),
    )
    .addOption(
      new Option('--gc-policy <NAME>', 'which block garbage collection empties next (default: greedy)').choices(
        victimPolicyNames,
      ),
    )
    .option('--gc-choices <D>', 'd-choices: blocks drawn (default: 8)', integerWithin(1, gcBounds.choicesMax))
    .option('--gc-window <N>', 'fifo: oldest blocks looked at (default: 1)', integerWithin(1, gcBounds.windowMax))
    .option(
      '--gc-start <N>',
      'superblocks with room below which writes pay for garbage collection (default: 2)',
      integerWithin(1, gcBounds.superblocksMax),
    )
    .option(
      '--gc-stop <N>',
      'superblocks with room up to which it goes on while no host writes (default: 4)',
      integerWithin(1, gcBounds.superblocksMax),
    )
    .addOption(
      new Option('--timing <MODE>', "device time of the drive's profile: say it, or keep to it (default: off)").choices(
        timingModes,
      ),
    )
    .option('--record <FILE>', 'record arrivals and device jobs in a new file, for replay')
    .addOption(
      new Option('--log-level <LEVEL>', 'log lines on standard error, JSON (default: info)').choices(logLevels),
    )
    .option(
      '--scrub-interval <TIME|off>',
      'time in which every page in use is checked once in the background (default: 7d)',
      parseIntervalSeconds,
    )
    .option('--allow-faults', 'let the control plane inject faults')
    .addHelpText('after', epilogue)
    .action(async (folder: string, options: StartOptions) => {
      const { runDaemon } = await import('../../../daemon/main.ts');
      await runDaemon(folder, daemonOptions(options));
    });
}

function daemonOptions(options: StartOptions): DaemonOptions {
  return {
    tcp: options.tcp,
    http: options.http,
    httpNames: options.httpName,
    httpTokenFile: options.httpTokenFile,
    httpOpenMetrics: options.httpOpenMetrics,
    httpCertFile: options.httpCert,
    httpKeyFile: options.httpKey,
    advertise: options.advertise,
    discovery: options.discovery,
    hosts: options.hosts,
    kernels: options.kernels,
    kernelPrecision: options.kernelPrecision,
    workers: options.workers,
    runtimeFolder: options.runtimeDir,
    group: options.group,
    bufferBytes: options.bufferSize,
    io: options.io,
    cacheBytes: options.cacheSize,
    busyPollUs: options.busyPoll,
    checkpointIntervalMs: options.checkpointInterval,
    verify: options.verify,
    timing: options.timing,
    record: options.record,
    placement: options.placement,
    gcPolicy: options.gcPolicy,
    gcChoices: options.gcChoices,
    gcWindow: options.gcWindow,
    gcStart: options.gcStart,
    gcStop: options.gcStop,
    scrubIntervalSeconds: options.scrubInterval,
    allowFaults: options.allowFaults,
    logLevel: options.logLevel,
  };
}
