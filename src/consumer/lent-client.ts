import type pg from 'pg';
import { TailraceError } from '../base/errors.ts';

/** A client in the hands of a handler. */
export interface LentClient {
  /** What the handler gets: the client itself, but for giving it away, and only until {@link takeBack}. */
  readonly tx: pg.PoolClient;
  /** The first statement of the handler that was not run, since it would have ended the transaction. */
  readonly refused: TailraceError | undefined;
  /** The handler has ended: from now on its queries are refused. They would run in another message's transaction. */
  takeBack(): void;
}

const NOT_THE_HANDLERS: ReadonlySet<string | symbol> = new Set(['release', 'end']);

/**
 * A statement that ends a transaction, or begins one inside it (which is where a library that would end it starts). What
 * undoes a part of it, `rollback to savepoint`, is the handler's to use.
 */
const ENDS_TRANSACTION =
  /^(?:\s|--[^\n]*\n|\/\*[^]*?\*\/)*(commit|end|abort|begin|start\s+transaction|prepare\s+transaction|rollback(?!\s+(?:(?:work|transaction)\s+)?to\b))\b/iu;

/** Lends a client of the pool to a handler. */
export function lendClient(client: pg.PoolClient): LentClient {
  const send = client.query.bind(client) as (...given: unknown[]) => unknown;
  let isBack = false;
  let refused: TailraceError | undefined;
  const query = (...given: unknown[]): unknown => {
    if (isBack) return refuse(notInTransaction(LATE_QUERY), given);
    const statement = ENDS_TRANSACTION.exec(textOf(given[0]))?.[1];
    if (statement === undefined) return send(...given);
    const error = notInTransaction(endsTransaction(statement));
    refused ??= error;
    return refuse(error, given);
  };
  const tx = new Proxy(client, {
    get(target, property): unknown {
      if (NOT_THE_HANDLERS.has(property)) return refuseToGiveAway;
      if (property === 'query') return query;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
  return {
    tx,
    get refused() {
      return refused;
    },
    takeBack: () => {
      isBack = true;
    },
  };
}

function refuseToGiveAway(): never {
  throw notInTransaction(
    'The handler tried to release or end its tx, which is not its own. The consumer does that when the handler has ended: remove the call.',
  );
}

const LATE_QUERY =
  'A query came through the tx of a handler that has ended, and its transaction with it. Await every query before the handler returns.';

function endsTransaction(statement: string): string {
  return `The handler sent ${statement.toLowerCase()}, which was not run: the transaction is the consumer's, which commits when the handler returns and undoes it when the handler throws. Remove the statement; to undo a part, use a savepoint.`;
}

function notInTransaction(problem: string): TailraceError {
  return new TailraceError('NOT_IN_TRANSACTION', problem);
}

/** Tells it to the callback, if the query has one. */
function refuse(error: TailraceError, given: readonly unknown[]): Promise<never> | undefined {
  const callback = given.at(-1);
  if (typeof callback !== 'function') return Promise.reject(error);
  queueMicrotask(() => void Reflect.apply(callback, undefined, [error]));
  return undefined;
}

/** Of a text, of a query config, and of what a client can be given to submit. */
function textOf(given: unknown): string {
  if (typeof given === 'string') return given;
  const { text } = (given as { readonly text?: unknown } | null | undefined) ?? {};
  return typeof text === 'string' ? text : '';
}
