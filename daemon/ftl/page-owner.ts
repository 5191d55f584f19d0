import type { KvPageTag } from './contract.ts';

/** "group 5 of K, head 1, layer 0, sequence 7": whose a KV page is, for people. */
export const kvOwnerText = ({
  group,
  part,
  head,
  layer,
  sequenceId,
}: Omit<KvPageTag, 'generation' | 'part'> & { readonly part: number }): string =>
  `group ${group} of ${part === 0 ? 'K' : 'V'}, head ${head}, layer ${layer}, sequence ${sequenceId}`;
