import type pg from 'pg';

/** What a pool of `pg` is listened to by; one that has none of it is not. */
export interface ObservablePool {
  on?(event: never, listener: never): unknown;
  removeListener?(event: never, listener: never): unknown;
}

/**
 * Listens for connections that are lost, so that none of them ends the process: of idle ones the pool tells, with which
 * `onIdleLost` is called; of one that is lent out only the client itself tells, and it may do so before whoever asked for it
 * has had a turn, as where the server ends a session just as it is opened. What is asked of such a client rejects.
 *
 * Returns what ends the listening. Clients that were lent out by then keep their listener.
 */
export function listenToPool(pool: ObservablePool, onIdleLost: (error: Error) => void = ignore): () => void {
  const events = pool as Partial<Pick<pg.Pool, 'on' | 'removeListener'>>;
  events.on?.('error', onIdleLost);
  events.on?.('acquire', listenToClient);
  return () => {
    events.removeListener?.('error', onIdleLost);
    events.removeListener?.('acquire', listenToClient);
  };
}

/** Once a client, however many listen to its pool and however often it is lent out. */
function listenToClient(client: pg.PoolClient): void {
  if (!client.listeners('error').includes(ignore)) client.on('error', ignore);
}

function ignore(): void {
  // The query that is under way rejects with the same error, or the next one does.
}
