import pg from 'pg';
import { listenToPool } from '../../src/postgres/pool-listener.ts';

/**
 * A pool whose connections may be lost at any time, also while it ends: `end` does not wait until the server has heard of it,
 * and a database that is dropped then says so to whoever still listens.
 */
export function openPool(config: pg.PoolConfig): pg.Pool {
  const pool = new pg.Pool(config);
  listenToPool(pool);
  return pool;
}
