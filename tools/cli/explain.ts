/** What a failed command leaves out: its completion has a status and no room for what would have been allowed. */
import type { DriveClient, DriveCommandError } from '../../client/index.ts';
import { BLOCK_NSID, KV_CACHE_NSID } from '../../spec/kv-commands.ts';
import { type DriveOption, withAdmin } from './connect.ts';
import { bytesText, countText } from './quantity.ts';

const IDS_SHOWN_MAX = 8;
const SUBJECT = /\bsequence (\d+)(?:, layer (\d+))?/;

/** The message of `error` with what is allowed behind it, asked of the drive; the message alone where that fails too. */
export async function explainFailure(
  error: DriveCommandError,
  client: DriveClient,
  options: DriveOption,
): Promise<string> {
  const hint = await hintFor(error, client, options).catch(() => undefined);
  return hint === undefined ? error.message : `${error.message}: ${hint}`;
}

async function hintFor(
  error: DriveCommandError,
  client: DriveClient,
  options: DriveOption,
): Promise<string | undefined> {
  switch (error.code) {
    case 'unknownSequence':
    case 'leaseExpired':
      return sequencesHint(await client.kv.list());
    case 'tokenRange':
    case 'appendGap':
    case 'layerRange':
    case 'headRange':
      return shapeHint(error, client);
    case 'invalidNamespace':
      return namespacesHint(await client.controller.activeNamespaces());
    case 'lbaRange':
      return `the block namespace has blocks 0 to ${(await client.controller.identifyNamespace()).nsze - 1}`;
    case 'capacityExceeded':
    case 'bufferFull':
    case 'sequenceLimit':
      return spaceHint(error.code, await client.controller.identifyKvNamespace());
    case 'unrecoveredRead':
      return pageHint(error.dw1 * 2 ** 32 + error.dw0, options);
    default:
      return undefined;
  }
}

function sequencesHint(ids: readonly bigint[]): string {
  if (ids.length === 0) return 'the drive holds no sequences';
  const more = ids.length > IDS_SHOWN_MAX ? ', … (all: attndrive kv list)' : '';
  return `the drive holds sequence${ids.length === 1 ? '' : 's'} ${ids.slice(0, IDS_SHOWN_MAX).join(', ')}${more}`;
}

async function shapeHint({ subject }: DriveCommandError, client: DriveClient): Promise<string | undefined> {
  const [, id, layerText] = SUBJECT.exec(subject) ?? [];
  if (id === undefined) return undefined;
  const { shape, lengths } = await (await client.kv.open(BigInt(id))).info();
  const length = layerText === undefined ? undefined : lengths[Number(layerText)];
  const shortest = Math.min(...lengths);
  const tokens = length ?? (shortest === Math.max(...lengths) ? shortest : `${shortest} to ${Math.max(...lengths)}`);
  const where = length === undefined ? 'each layer' : `layer ${layerText}`;
  const heads = `KV heads 0 to ${shape.kvHeadCount - 1}`;
  return `sequence ${id} has layers 0 to ${shape.layerCount - 1}, ${heads} and ${tokens} tokens in ${where}`;
}

function namespacesHint(ids: readonly number[]): string {
  const names: Record<number, string> = { [BLOCK_NSID]: ' (blocks)', [KV_CACHE_NSID]: ' (KV cache)' };
  return `allowed: ${ids.map((id) => `${id}${names[id] ?? ''}`).join(', ')}`;
}

type KvNamespace = Awaited<ReturnType<DriveClient['controller']['identifyKvNamespace']>>;

function spaceHint(code: 'capacityExceeded' | 'bufferFull' | 'sequenceLimit', space: KvNamespace): string {
  const { pageCount, freePageCount, pageSizeBytes, bufferBytes, bufferFreeBytes } = space;
  const free = 'free some with "attndrive kv reclaim ID"; "attndrive kv list" shows what each holds';
  if (code === 'sequenceLimit') {
    return `${countText(space.sequenceCount)} of ${countText(space.sequenceCountMax)} sequences; ${free}`;
  }
  if (code === 'bufferFull') {
    return `${bytesText(bufferBytes - bufferFreeBytes)} of ${bytesText(bufferBytes)} tail buffer are in use; ${free}`;
  }
  const used = bytesText((pageCount - freePageCount) * pageSizeBytes);
  return `${used} of ${bytesText(pageCount * pageSizeBytes)} for KV caches are in use; ${free}`;
}

/** Where a page lies is known to the control plane only. */
async function pageHint(page: number, options: DriveOption): Promise<string> {
  const place = await withAdmin(options, (admin) => admin.drive()).catch(() => undefined);
  if (place === undefined) return `flash page ${page}`;
  const { channelCount, dieCount, planeCount, pagesPerBlock } = place.geometry;
  const superblock = Math.floor(page / (channelCount * dieCount * planeCount * pagesPerBlock));
  return `flash page ${page} (superblock ${superblock})`;
}
