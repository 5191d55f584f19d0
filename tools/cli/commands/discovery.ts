import { type Command, Option } from 'commander';
import { logLevels } from '../../../daemon/config.ts';

interface DiscoveryServiceOptions {
  tcp?: string;
  records?: string;
  hosts?: string;
  logLevel?: string;
}

const epilogue = `
Hosts ask it with "nvme discover" and "nvme connect-all". It tells of the subsystems in its records file and of the drives
that register ("attndrive start --discovery HOST:PORT"), which it forgets when their connection ends. SIGHUP reads the
records and the hosts file again. The file of records:
  {"subsystems": [{"nqn": "nqn.2026-11.dev.attndrive:SERIAL", "address": "192.0.2.7:4420"}],
   "referrals": [{"address": "192.0.2.2:8009"}]}

Examples:
  $ attndrive discovery
  $ attndrive discovery --tcp 192.0.2.1:8009 --records /etc/attndrive/discovery.json`;

export function addDiscovery(program: Command): void {
  program
    .command('discovery')
    .summary('run a discovery service for many drives in the foreground')
    .description('Tells hosts where the drives of a rack are, until it is told to stop.')
    .option('--tcp <HOST:PORT>', 'NVMe/TCP (default: 127.0.0.1:8009)')
    .option('--records <FILE>', 'subsystems and other discovery services to tell of (default: none)')
    .option('--hosts <FILE>', 'hosts and drives that may connect (default: none, all may)')
    .addOption(
      new Option('--log-level <LEVEL>', 'log lines on standard error, JSON (default: info)').choices(logLevels),
    )
    .addHelpText('after', epilogue)
    .action(async (options: DiscoveryServiceOptions) => {
      const { runDiscovery } = await import('../../../daemon/discovery-daemon.ts');
      await runDiscovery(options);
    });
}
