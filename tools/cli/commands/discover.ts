import type { Command } from 'commander';
import { DiscoveryClient, type DiscoveryEntry, type DiscoveryLog } from '../../../client/index.ts';
import { DISCOVERY_PORT } from '../../../spec/discovery.ts';
import { printJson, printLine } from '../output.ts';

interface DiscoverOptions {
  json?: boolean;
}

const epilogue = `
ADDRESS is tcp:HOST:PORT of a discovery service or of a drive, or unix:PATH of a drive's socket.

Examples:
  $ attndrive discover
  $ attndrive discover tcp:192.0.2.1:8009 --json`;

export function addDiscover(program: Command): void {
  program
    .command('discover')
    .summary('list what a discovery service tells of')
    .description('Prints the discovery log of a discovery service, or of a drive.')
    .argument('[ADDRESS]', `default: tcp:127.0.0.1:${DISCOVERY_PORT}`)
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runDiscover);
}

async function runDiscover(address: string | undefined, options: DiscoverOptions): Promise<void> {
  const client = await DiscoveryClient.connect(address ?? `tcp:127.0.0.1:${DISCOVERY_PORT}`);
  let log: DiscoveryLog;
  try {
    log = await client.log();
  } finally {
    await client.close();
  }
  if (options.json) printJson({ genctr: log.generation, records: log.entries.map(recordOf) });
  else printLog(log);
}

const subtypeTexts = {
  referral: 'discovery subsystem referral',
  nvm: 'nvme subsystem',
  current: 'current discovery subsystem',
} as const satisfies Record<DiscoveryEntry['subtype'], string>;

/** nvme-cli's names, in its order. */
const recordOf = ({ subtype, nqn, host, port, fields }: DiscoveryEntry) => ({
  trtype: 'tcp',
  adrfam: host.includes(':') ? 'ipv6' : 'ipv4',
  subtype: subtypeTexts[subtype],
  treq: fields.treq,
  portid: fields.portid,
  trsvcid: String(port),
  subnqn: nqn,
  traddr: host,
  eflags: fields.eflags,
});

function printLog({ generation, entries }: DiscoveryLog): void {
  printLine(`Discovery Log Number of Records ${entries.length}, Generation counter ${generation}`);
  entries.forEach((entry, index) => {
    printLine(`=====Discovery Log Entry ${index}======`);
    for (const [name, value] of Object.entries(recordOf(entry))) printLine(`${`${name}:`.padEnd(8)} ${value}`);
  });
}
