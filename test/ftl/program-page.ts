import type { KvPages, KvPageTag, Lpn, PageReservation } from '../../daemon/ftl/contract.ts';

const lpns = new Uint32Array(1);

/** Programs one KV page from `pageOffset` of the arena on. */
export function programPage(
  kv: KvPages,
  reservation: PageReservation,
  { sequenceId, generation, layer, head, part, group }: KvPageTag,
  pageOffset: number,
  target: { readonly channel: number; readonly placement: number },
): Lpn {
  const run = {
    sequenceId,
    generation,
    layer,
    firstGroup: group,
    groupCount: 1,
    firstIndex: 2 * head + part,
    pageCount: 1,
  };
  kv.program(reservation, run, pageOffset, target, lpns);
  return lpns[0] as Lpn;
}
