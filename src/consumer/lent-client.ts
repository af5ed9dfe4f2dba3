import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';

/** A client in the hands of a handler. */
export interface LentClient {
  /** What the handler gets: the client itself, but for giving it away, and only until {@link takeBack}. */
  readonly tx: pg.PoolClient;
  /** The handler has ended: from now on its queries are refused. They would run in another message's transaction. */
  takeBack(): void;
}

const NOT_THE_HANDLERS: ReadonlySet<string | symbol> = new Set(['release', 'end']);

/** Lends a client of the pool to a handler. */
export function lendClient(client: pg.PoolClient): LentClient {
  let isBack = false;
  const tx = new Proxy(client, {
    get(target, property): unknown {
      if (NOT_THE_HANDLERS.has(property)) return refuseToGiveAway;
      if (isBack && property === 'query') return refuseLateQuery;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  return {
    tx,
    takeBack: () => {
      isBack = true;
    },
  };
}

function refuseToGiveAway(): never {
  throw new TailraceError(
    'NOT_IN_TRANSACTION',
    'The handler tried to release or end its tx, which is not its own. The consumer does that when the handler has ended: remove the call.',
  );
}

function refuseLateQuery(): Promise<never> {
  return Promise.reject(
    new TailraceError(
      'NOT_IN_TRANSACTION',
      'A query came through the tx of a handler that has ended, and its transaction with it. Await every query before the handler returns.',
    ),
  );
}
