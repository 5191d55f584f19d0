/** Gets what the tests against Linux need, or says what is missing and ends with status 3. */
import { cacheFolder, MissingRequirementError, preparePackages } from './debian-packages.ts';

const EXIT_MISSING = 3;

try {
  const update = process.argv.includes('--update');
  const { kernels } = preparePackages({ update, say: (text) => console.log(text) });
  const releases = Object.values(kernels).map(({ release }) => release);
  console.log(`kernels ${releases.join(' and ')}, QEMU and programs in ${cacheFolder}`);
} catch (error) {
  if (!(error instanceof MissingRequirementError)) throw error;
  console.error(`attndrive: ${error.message}`);
  process.exitCode = EXIT_MISSING;
}
