import { crc32c } from '../../daemon/base/crc32c.ts';
import type { KvPages, KvPageTag, Lpn, PageReservation } from '../../daemon/ftl/contract.ts';

const lpns = new Uint32Array(1);

/** Programs one KV page, a view of the arena. */
export function programPage(
  kv: KvPages,
  reservation: PageReservation,
  { sequenceId, generation, layer, head, part, group }: KvPageTag,
  page: Uint8Array,
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
  const pages = { offset: page.byteOffset, checksums: Uint32Array.of(crc32c(page)) };
  kv.program(reservation, run, pages, target, lpns);
  return lpns[0] as Lpn;
}
