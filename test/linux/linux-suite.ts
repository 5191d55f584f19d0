/** Everything that the stock Linux host and nvme-cli do with a drive, for one kernel. */
import { after, before, describe } from 'node:test';
import { adminTests } from './admin-tests.ts';
import { authenticationTests } from './authentication-tests.ts';
import { blockTests } from './block-tests.ts';
import type { KernelSeries } from './debian-packages.ts';
import { discoveryTests } from './discovery-tests.ts';
import { kvTests } from './kv-tests.ts';
import { LinuxRig } from './linux-rig.ts';
import { nvmetTests } from './nvmet-tests.ts';
import { restartTests } from './restart-tests.ts';

export function linuxSuite(series: KernelSeries): void {
  describe(`Linux ${series}`, () => {
    const rig = new LinuxRig(series);
    before(() => rig.start());
    after(() => rig.stop());
    discoveryTests(rig);
    authenticationTests(rig);
    adminTests(rig);
    blockTests(rig);
    nvmetTests(rig);
    restartTests(rig);
    kvTests(rig);
  });
}
