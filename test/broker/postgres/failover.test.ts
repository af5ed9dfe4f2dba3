import { expect, test } from 'vitest';
import { postgresLog } from '../../../src/broker/postgres/index.ts';
import { ACCEPT_TIMELINE, startFailoverPair } from '../../source/failover-pair.ts';
import { acquire, appendTo, insertRows } from './fixture.ts';

test('a writer that lives through the promotion of a standby that was behind appends nothing there', async () => {
  await using pair = await startFailoverPair();
  const { primary, promoted, promotedUrl, connectionString } = pair;
  const log = postgresLog({ connectionString, partitions: 1 });
  const writer = await acquire(log);
  await writer.partitionCount('orders');
  const entries = async (): Promise<unknown> =>
    (await promoted.query('select base::int, ids::int[] from tailrace.log_entry order by base')).rows;

  const [first = 0] = await insertRows(primary.pool, 1);
  await appendTo(writer, 0, [first]);
  await expect.poll(entries, { timeout: 60_000 }).toEqual([{ base: 0, ids: [first] }]);
  await pair.fallBehind();
  const gone = await insertRows(primary.pool, 2);
  await appendTo(writer, 0, gone);

  await pair.promote();
  await promoted.query(ACCEPT_TIMELINE); // the lease that the standby copied names this writer and its epoch
  const [next = 0] = await insertRows(promoted, 1);
  expect(next).toBeGreaterThan(first);
  await expect(appendTo(writer, 0, [next])).rejects.toMatchObject({ code: 'LEASE_LOST' });
  expect(writer.signal.aborted).toBe(true);
  expect(await entries()).toEqual([{ base: 0, ids: [first] }]);
  await log.close();

  await using later = {
    log: postgresLog({ connectionString: promotedUrl }),
    [Symbol.asyncDispose]: () => later.log.close(),
  };
  await appendTo(await acquire(later.log), 0, [next]);
  expect(await entries()).toEqual([
    { base: 0, ids: [first] },
    { base: 1, ids: [next] },
  ]);
});
