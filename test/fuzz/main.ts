// npm run fuzz -- --seed N --cases N: plays sessions of bad inputs and says what went wrong, if anything did.
import { parseArgs } from 'node:util';
import { countOption } from '../sim/count-option.ts';
import { parseSeed } from '../sim/prng.ts';
import { type CampaignOptions, runCampaign } from './campaign.ts';
import { targetNamed, targets } from './registry.ts';
import { CampaignReport } from './report.ts';

const USAGE = `npm run fuzz -- [options]

  --seed N        first seed: a whole number, 0x..., or 40 hexadecimal digits (a commit); default: drawn
  --cases N       cases of all targets together; default 100000
  --target NAME   only this one, or these if it is said again: ${targets.map(({ name }) => name).join(', ')}
  --seconds N     begins no session after so long
  --jobs N        processes; default 1
  --bug NAME      plants a bug: ${targets.flatMap(({ bugs }) => Object.keys(bugs)).join(', ')}
  --coverage      measures which lines and branches of the drive were run
  --keep-going    goes on after a failure
  --json          one JSON object a line

Exit status: 0 nothing went wrong, 1 something did, 2 the options are wrong.`;

interface Settings extends CampaignOptions {
  readonly isJson: boolean;
}

function settingsOf(args: readonly string[]): Settings | undefined {
  const string = { type: 'string' } as const;
  const flag = { type: 'boolean' } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      seed: string,
      cases: string,
      target: { ...string, multiple: true },
      seconds: string,
      jobs: string,
      bug: string,
      coverage: flag,
      'keep-going': flag,
      json: flag,
      help: flag,
    },
  });
  if (values.help === true) return undefined;
  const { bug } = values;
  const chosen = values.target === undefined ? targets : [...new Set(values.target)].map(targetNamed);
  const withBug = bug === undefined ? chosen : chosen.filter(({ bugs }) => Object.hasOwn(bugs, bug));
  if (withBug.length === 0) throw new Error(`--bug ${bug}: none of ${chosen.map(({ name }) => name).join(', ')}`);
  const drawn = BigInt(crypto.getRandomValues(new Uint32Array(1))[0]!);
  return {
    targets: withBug,
    seed: values.seed === undefined ? drawn : parseSeed(values.seed),
    cases: countOption(values.cases, 'cases', 100_000),
    seconds: countOption(values.seconds, 'seconds', Number.POSITIVE_INFINITY),
    jobs: countOption(values.jobs, 'jobs', 1),
    bug,
    keepsGoing: values['keep-going'] === true,
    measuresCoverage: values.coverage === true,
    isJson: values.json === true,
  };
}

async function main(args: readonly string[]): Promise<number> {
  let settings: Settings | undefined;
  try {
    settings = settingsOf(args);
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${USAGE}`);
    return 2;
  }
  if (settings === undefined) {
    console.log(USAGE);
    return 0;
  }
  const report = new CampaignReport(settings, settings.isJson);
  report.begin();
  await runCampaign(settings, {
    outcome: (outcome) => report.outcome(outcome),
    memory: (bytes) => report.memory(bytes),
    coverage: (scripts) => report.coverage(scripts),
  });
  return report.end() ? 0 : 1;
}

main(process.argv.slice(2)).then(
  (status) => (process.exitCode = status),
  (error: unknown) => {
    console.error(error);
    process.exitCode = 1;
  },
);
