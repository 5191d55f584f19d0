// A process that writes blocks until it is killed. Arguments: the drive's folder, the first version. It prints
// "LBA VERSION STATE" after each write; state is fua if that write is durable, flushed if all before it are too.
import { createArena } from '../../daemon/base/arena.ts';
import { systemClock } from '../../daemon/base/clock.ts';
import { silentLogger } from '../../daemon/base/logger.ts';
import { createSeededRandom, systemRandom } from '../../daemon/base/random.ts';
import { Ftl, openFolder } from '../../daemon/ftl/ftl.ts';
import { loadKernels } from '../../daemon/kernels/loader.ts';
import { lbaContent } from './open-drive.ts';
import { PageKeeper } from './page-keeper.ts';

const LBA_COUNT = 512;

const [, , folder = '', firstVersion = '1'] = process.argv;
const arena = createArena(4 * 2 ** 20);
const ftl = await Ftl.open(openFolder(folder), {
  arena,
  kernels: loadKernels('wasm', { memory: arena.memory }),
  clock: systemClock,
  random: systemRandom,
  logger: silentLogger,
  kvRecovery: new PageKeeper(arena),
});
const random = createSeededRandom(Number(firstVersion));
for (let version = Number(firstVersion); ; version++) {
  const lba = random.nextUint32() % LBA_COUNT;
  const fua = version % 4 === 0;
  await ftl.blocks.write(lba, 1, lbaContent(lba, version), fua);
  const flushes = version % 16 === 2;
  if (flushes) await ftl.durability.flush();
  process.stdout.write(`${lba} ${version} ${flushes ? 'flushed' : fua ? 'fua' : 'cached'}\n`);
}
