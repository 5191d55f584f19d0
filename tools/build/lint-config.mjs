// Writes (--write) or checks the import rules of `.oxlintrc.json` against the table in layers.mjs.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { layerOverrides } from './layers.mjs';

const path = fileURLToPath(new URL('../../.oxlintrc.json', import.meta.url));

/** The text that `.oxlintrc.json` should have, and the one it has. */
export function lintConfig() {
  const present = readFileSync(path, 'utf8');
  const config = JSON.parse(present);
  const own = config.overrides.filter((override) => override.rules['no-restricted-imports'] === undefined);
  config.overrides = [...own, ...layerOverrides()];
  return { present, wanted: `${JSON.stringify(config, null, 2)}\n` };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { present, wanted } = lintConfig();
  if (process.argv.includes('--write')) writeFileSync(path, wanted);
  else if (JSON.stringify(JSON.parse(present)) !== JSON.stringify(JSON.parse(wanted))) {
    console.error('.oxlintrc.json differs from tools/build/layers.mjs: node tools/build/lint-config.mjs --write');
    process.exit(1);
  }
}
