import type { Command } from 'commander';
import { ENDURANCE_GROUP_ID } from '../../../spec/identify.ts';
import { type DriveOption, withDrive, withDriveOption } from '../connect.ts';
import { printStruct, snakeCase } from '../nvme-print.ts';
import { printJson } from '../output.ts';
import { integerWithin } from '../quantity.ts';

interface EnduranceOptions extends DriveOption {
  groupId: number;
  json?: boolean;
}

const epilogue = `
Units of data are billions of bytes. endurance_estimate is 0 for a drive whose blocks do not wear out.

Example:
  $ attndrive endurance-log`;

export function addEnduranceLog(program: Command): void {
  withDriveOption(
    program
      .command('endurance-log')
      .summary('Endurance Group Information log')
      .description('Prints the Endurance Group Information log: wear, spares, and what was written.'),
  )
    .option('-g, --group-id <ID>', 'endurance group', integerWithin(0, 0xffff), ENDURANCE_GROUP_ID)
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runEnduranceLog);
}

async function runEnduranceLog(options: EnduranceOptions): Promise<void> {
  const { groupId } = options;
  const { serial, log } = await withDrive(options, async (client) => ({
    serial: client.identity.sn,
    log: await client.controller.enduranceGroupLog(groupId),
  }));
  const fields = Object.fromEntries(Object.entries(log).map(([name, value]) => [snakeCase(name), value]));
  if (options.json) printJson(fields);
  else printStruct(`Endurance Group Log for NVME device:${serial} Group ID:${groupId}`, fields);
}
