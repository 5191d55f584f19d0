import { BLOCK_NSID, KV_CACHE_CSI, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { NVM_CSI } from '../../spec/identify.ts';

/** "All namespaces". */
export const BROADCAST_NSID = 0xffff_ffff;

/** Every namespace, ascending, with its command set. */
export const namespaces: readonly { readonly nsid: number; readonly csi: number }[] = [
  { nsid: BLOCK_NSID, csi: NVM_CSI },
  { nsid: KV_CACHE_NSID, csi: KV_CACHE_CSI },
];

export const commandSetIds: readonly number[] = namespaces.map(({ csi }) => csi);
export const csiOf = (nsid: number): number | undefined => namespaces.find((row) => row.nsid === nsid)?.csi;
