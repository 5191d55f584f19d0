import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import { KV_CACHE_NSID } from '../../../spec/kv-commands.ts';
import { type DriveOption, withDrive, withDriveOption } from '../connect.ts';
import { printJson, printTable } from '../output.ts';

interface ListOptions extends DriveOption {
  json?: boolean;
}

interface ListedNamespace {
  readonly devicePath: string;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly namespaceId: number;
  readonly usedBytes: number;
  readonly sizeBytes: number;
  /** Logical block; a flash page for the KV-cache namespace. */
  readonly sectorSize: number;
  readonly firmware: string;
  /** So many erase blocks are bad that the drive only reads. */
  readonly isWriteProtected: boolean;
}

const epilogue = `
Drives that do not answer are named on standard error; the exit status is then 1.
The columns are those of nvme list; behind its Format stands read-only where a drive is worn out.
Node is where the drive listens; Format of the KV-cache namespace is its page.

Examples:
  $ attndrive list
  $ attndrive list --drive ./drive --json`;

export function addList(program: Command): void {
  withDriveOption(
    program
      .command('list')
      .summary('list running drives and their namespaces')
      .description('Lists the running drives of this user, or one, with their namespaces.'),
  )
    .option('--json', 'print JSON')
    .addHelpText('after', epilogue)
    .action(runList);
}

async function runList(options: ListOptions): Promise<void> {
  const found = await listedNamespaces(options);
  if (options.json) {
    printJson({ Devices: found.map(jsonEntry) });
    return;
  }
  const columns = ['Node', 'SN', 'Model', 'Namespace', 'Usage', 'Format', 'FW Rev'].map((title) => ({ title }));
  printTable(
    columns,
    found.map((entry) => [
      entry.devicePath,
      entry.serialNumber,
      entry.modelNumber,
      String(entry.namespaceId),
      usageText(entry.usedBytes, entry.sizeBytes),
      formatText(entry),
      entry.firmware,
    ]),
  );
}

function formatText({ namespaceId, sectorSize, isWriteProtected }: ListedNamespace): string {
  const size = `${sectorSize / 1024} KiB ${namespaceId === KV_CACHE_NSID ? 'pages' : '+  0 B'}`;
  return isWriteProtected ? `${size}, read-only` : size;
}

/** Of the drive asked for, or of every drive of this user that answers; the others are named on standard error. */
async function listedNamespaces(options: ListOptions): Promise<ListedNamespace[]> {
  if (options.drive !== undefined) return namespacesOf(options.drive);
  const { announcedDrives } = await import('../../../client/index.ts');
  const { running, gone } = announcedDrives();
  const say = (text: string): void => void process.stderr.write(`attndrive: ${text}\n`);
  for (const { folder, serial, processId } of gone) {
    if (!existsSync(folder)) continue;
    say(`${folder} (${serial}): its daemon (process ${processId}) is gone; start it with "attndrive start ${folder}"`);
  }
  const results = await Promise.allSettled(running.map(({ nvmeSocket }) => namespacesOf(`unix:${nvmeSocket}`)));
  return results.flatMap((result, index) => {
    if (result.status === 'fulfilled') return result.value;
    const { folder, serial, processId } = running[index]!;
    const reason = result.reason instanceof Error ? result.reason.message : String(result.reason);
    say(`${folder} (${serial}, process ${processId}) does not answer: ${reason}`);
    process.exitCode = 1;
    return [];
  });
}

async function namespacesOf(drive: string): Promise<ListedNamespace[]> {
  return withDrive({ drive }, async (client) => {
    const { identity, controller } = client;
    const ofDrive = {
      devicePath: client.address,
      serialNumber: identity.sn,
      modelNumber: identity.mn,
      firmware: identity.fr,
    };
    const listed: ListedNamespace[] = [];
    for (const namespaceId of await controller.activeNamespaces()) {
      const { nsattr } = await controller.identifyIndependentNamespace(namespaceId);
      const common = { ...ofDrive, isWriteProtected: (nsattr & 1) !== 0 };
      if (namespaceId === KV_CACHE_NSID) {
        const { pageSizeBytes, pageCount, freePageCount, capacityBytes } =
          await controller.identifyKvNamespace(namespaceId);
        const usedBytes = (pageCount - freePageCount) * pageSizeBytes;
        listed.push({ ...common, namespaceId, usedBytes, sizeBytes: capacityBytes, sectorSize: pageSizeBytes });
        continue;
      }
      const { nsze, nuse, lbaf0 } = await controller.identifyNamespace(namespaceId);
      const sectorSize = 2 ** ((lbaf0 >>> 16) & 0xff);
      listed.push({ ...common, namespaceId, usedBytes: nuse * sectorSize, sizeBytes: nsze * sectorSize, sectorSize });
    }
    return listed;
  });
}

/** Field names of nvme list -o json. */
function jsonEntry(entry: ListedNamespace): Record<string, unknown> {
  return {
    NameSpace: entry.namespaceId,
    DevicePath: entry.devicePath,
    Firmware: entry.firmware,
    ModelNumber: entry.modelNumber,
    SerialNumber: entry.serialNumber,
    UsedBytes: entry.usedBytes,
    MaximumLBA: entry.sizeBytes / entry.sectorSize,
    PhysicalSize: entry.sizeBytes,
    SectorSize: entry.sectorSize,
    WriteProtected: entry.isWriteProtected,
  };
}

function usageText(usedBytes: number, sizeBytes: number): string {
  const decimal = (bytes: number): string => {
    const steps = ['B', 'kB', 'MB', 'GB', 'TB'];
    const step = bytes === 0 ? 0 : Math.min(steps.length - 1, Math.floor(Math.log10(bytes) / 3));
    return `${(bytes / 1000 ** step).toFixed(2).padStart(6)} ${steps[step]!.padStart(2)}`;
  };
  return `${decimal(usedBytes)} / ${decimal(sizeBytes)}`;
}
