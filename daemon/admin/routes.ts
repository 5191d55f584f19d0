import type { AdminRoutes, Route } from '../../spec/admin-api.ts';
import { pageLimits } from '../../spec/admin-api.ts';
import type { Clock } from '../base/clock.ts';
import { DriveError } from '../base/errors.ts';
import type { DriveView } from './drive-view.ts';
import type { MetricsRegistry } from './metrics-registry.ts';

export interface RouteAnswer<R> {
  readonly status: number;
  readonly body: R;
}

type Handler<T> =
  T extends Route<infer P, infer Q, infer R, infer B>
    ? (parameters: P, query: Q, body: B) => RouteAnswer<R> | Promise<RouteAnswer<R>>
    : never;

export type Handlers = { readonly [K in keyof AdminRoutes]: Handler<AdminRoutes[K]> };

const SEQUENCE_ID_MAX = 2n ** 64n - 1n;

const ok = <R>(body: R): RouteAnswer<R> => ({ status: 200, body });

/** What each route of the table does: a snapshot, or one action. */
export function createHandlers(modules: { view: DriveView; clock: Clock; registry: MetricsRegistry }): Handlers {
  const { view, clock, registry } = modules;
  return {
    health: () => {
      const body = view.health();
      return { status: body.ready ? 200 : 503, body };
    },
    drive: () => ok(view.drive()),
    namespaces: () => ok({ items: view.namespaces() }),
    sequences: (_, { after = '0', limit = pageLimits.limitDefault }) => {
      // One more than asked for tells whether there is a next page.
      const found = view.sequences(parseSequenceId(after), limit + 1);
      const items = found.slice(0, limit);
      const next = items.at(-1)?.id;
      return ok(found.length > limit && next !== undefined ? { items, next } : { items });
    },
    sequence: ({ id }) => ok(view.sequence(parseSequenceId(id))),
    reclaim: async ({ id }) => {
      await view.reclaim(parseSequenceId(id));
      return ok({ reclaimed: id });
    },
    connections: () => ok({ items: view.connections() }),
    blocks: (_, { after = -1, limit = pageLimits.limitDefault, state }) => {
      const found = view.superblocks(after, limit + 1, state);
      const items = found.slice(0, limit);
      const next = items.at(-1)?.index;
      const summary = view.blockSummary();
      return ok(found.length > limit && next !== undefined ? { summary, items, next } : { summary, items });
    },
    faults: () => ok({ items: view.faults() }),
    addFault: async (_parameters, _query, request) => ok(await view.addFault(request)),
    removeFault: async ({ id }) => {
      await view.removeFault(Number(id));
      return ok({ removed: id });
    },
    scrub: () => ok(view.scrub()),
    startScrub: () => {
      view.startScrub();
      return ok(view.scrub());
    },
    flush: async () => {
      const beginNs = clock.nowNs();
      await view.flush();
      return ok({ durationSeconds: (clock.nowNs() - beginNs) / 1e9 });
    },
    metrics: async () => ok(await registry.scrape()),
  };
}

function parseSequenceId(text: string): bigint {
  const id = BigInt(text);
  if (id > SEQUENCE_ID_MAX)
    throw new DriveError('invalidField', `sequence id ${text}; allowed: 0 to ${SEQUENCE_ID_MAX}`);
  return id;
}
