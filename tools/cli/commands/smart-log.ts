import type { Command } from 'commander';
import { type DriveOption, withDrive, withDriveOption } from '../connect.ts';
import { dataUnitsText, snakeCase } from '../nvme-print.ts';
import { printJson, printLine } from '../output.ts';

interface SmartOptions extends DriveOption {
  json?: boolean;
}

export function addSmartLog(program: Command): void {
  withDriveOption(
    program
      .command('smart-log')
      .summary('SMART / Health Information log')
      .description('Prints the SMART / Health Information log.'),
  )
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  $ attndrive smart-log --json')
    .action(runSmartLog);
}

const KELVIN = 273;
const NAME_WIDTH = 40;

async function runSmartLog(options: SmartOptions): Promise<void> {
  const { serial, log } = await withDrive(options, async (client) => ({
    serial: client.identity.sn,
    log: await client.controller.smartLog(),
  }));
  if (options.json) {
    printJson(Object.fromEntries(Object.entries(log).map(([name, value]) => [snakeCase(name), value])));
    return;
  }
  const units = (value: number | bigint): string => `${value} (${dataUnitsText(value)})`;
  printLine(`Smart Log for NVME device:${serial} namespace-id:ffffffff`);
  const lines: [string, string | number | bigint][] = [
    ['critical_warning', log.criticalWarning],
    ['temperature', log.temperature === 0 ? '0' : `${log.temperature - KELVIN} °C (${log.temperature} K)`],
    ['available_spare', `${log.availSpare}%`],
    ['available_spare_threshold', `${log.spareThresh}%`],
    ['percentage_used', `${log.percentUsed}%`],
    ['endurance group critical warning summary', log.enduranceGrpCriticalWarningSummary],
    ['Data Units Read', units(log.dataUnitsRead)],
    ['Data Units Written', units(log.dataUnitsWritten)],
    ['host_read_commands', log.hostReadCommands],
    ['host_write_commands', log.hostWriteCommands],
    ['controller_busy_time', log.controllerBusyTime],
    ['power_cycles', log.powerCycles],
    ['power_on_hours', log.powerOnHours],
    ['unsafe_shutdowns', log.unsafeShutdowns],
    ['media_errors', log.mediaErrors],
    ['num_err_log_entries', log.numErrLogEntries],
    ['Warning Temperature Time', log.warningTempTime],
    ['Critical Composite Temperature Time', log.criticalCompTime],
    ['Thermal Management T1 Trans Count', log.thmTemp1TransCount],
    ['Thermal Management T2 Trans Count', log.thmTemp2TransCount],
    ['Thermal Management T1 Total Time', log.thmTemp1TotalTime],
    ['Thermal Management T2 Total Time', log.thmTemp2TotalTime],
  ];
  for (const [name, value] of lines) printLine(`${name.padEnd(NAME_WIDTH)} : ${value}`);
}
