import type { Command } from 'commander';
import { controllerVendorArea, identifyController, identifyNamespace, lbaFormatBits } from '../../../spec/identify.ts';
import { unpackBits } from '../../../spec/bits.ts';
import { kvNamespace } from '../../../spec/identify-kv.ts';
import { BLOCK_NSID, KV_CACHE_CSI, KV_CACHE_NSID } from '../../../spec/kv-commands.ts';
import { type DriveOption, withDrive, withDriveOption } from '../connect.ts';
import { printStruct, structFields } from '../nvme-print.ts';
import { printJson, printLine } from '../output.ts';
import { integerWithin } from '../quantity.ts';

interface IdentifyOptions extends DriveOption {
  json?: boolean;
  namespaceId?: number;
}

export function addIdentify(program: Command): void {
  withDriveOption(
    program
      .command('id-ctrl')
      .summary('Identify Controller')
      .description("Prints the controller's Identify structure and vendor area."),
  )
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  $ attndrive id-ctrl')
    .action(runIdentifyController);
  withDriveOption(
    program
      .command('id-ns')
      .summary('Identify Namespace')
      .description("Prints a namespace's Identify structure: 1 blocks, 2 KV cache."),
  )
    .option('-n, --namespace-id <NSID>', 'namespace', integerWithin(1, 0xffff_fffe), BLOCK_NSID)
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExamples:\n  $ attndrive id-ns\n  $ attndrive id-ns -n 2')
    .action(runIdentifyNamespace);
}

async function runIdentifyController(options: IdentifyOptions): Promise<void> {
  const raw = await withDrive(options, (client) => client.controller.identify('controller'));
  const value = identifyController.decode(raw);
  const fields = structFields(value, ['psd0', 'vs']);
  const vendor = structFields(controllerVendorArea.decode(value.vs));
  if (options.json) {
    printJson({ ...fields, vs: vendor });
    return;
  }
  printStruct('NVME Identify Controller:', fields);
  printLine();
  printStruct('Vendor area:', vendor);
}

async function runIdentifyNamespace(options: IdentifyOptions): Promise<void> {
  const namespaceId = options.namespaceId ?? BLOCK_NSID;
  if (namespaceId === KV_CACHE_NSID) {
    const raw = await withDrive(options, (client) =>
      client.controller.identify('commandSetNamespace', { namespaceId, csi: KV_CACHE_CSI }),
    );
    const fields = structFields(kvNamespace.decode(raw));
    if (options.json) printJson(fields);
    else printStruct(`NVME Identify KV-Cache Namespace ${namespaceId}:`, fields);
    return;
  }
  const raw = await withDrive(options, (client) => client.controller.identify('namespace', { namespaceId }));
  const fields = structFields(identifyNamespace.decode(raw), ['lbaf0']);
  const lbaf = unpackBits(lbaFormatBits, identifyNamespace.decode(raw).lbaf0);
  if (options.json) {
    const { ms, rp } = lbaf;
    printJson({ ...fields, lbafs: [{ ms, ds: lbaf.lbads, rp, in_use: 1 }] });
    return;
  }
  printStruct(`NVME Identify Namespace ${namespaceId}:`, fields);
  printLine(`lbaf  0 : ms:${lbaf.ms}   lbads:${lbaf.lbads} rp:${lbaf.rp} (in use)`);
}
