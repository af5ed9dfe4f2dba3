import { expect, it } from 'vitest';
import { silentLogger } from '../../../src/base/logger.ts';
import { openMaintenanceClient } from '../../../src/broker/postgres/maintenance/maintenance.ts';
import { maintain } from '../../../src/broker/postgres/maintenance/round.ts';
import { addEffect, Counted } from '../../consumer/counted.ts';
import { counts, Stream } from '../../consumer/kit.ts';
import { sabotagedDatabase, sabotageStatements, type SabotageName } from './sabotage.ts';

// What a run has to find must be there: a statement that the product writes in another way by now would not be replaced.

/** Handles two messages, the first of them after a failure. Returns how many effects and processed rows there are then. */
async function handleTwo(sabotage: SabotageName): Promise<object | undefined> {
  await using stream = await Stream.open({ partitions: 1 });
  const ended = Promise.withResolvers<undefined>();
  let hasFailed = false;
  const consumer = stream
    .consumer({ database: sabotagedDatabase(stream.pool, sabotage), retries: { attempts: 2 } })
    .on(Counted, async ({ payload }, { tx }) => {
      await addEffect(tx, payload);
      if (payload.n === 2) ended.resolve(undefined);
      if (hasFailed) return;
      hasFailed = true;
      throw new Error('Fails once.');
    });
  await stream.publish(...counts(['a'], 2));
  await consumer.start();
  await ended.promise;
  await consumer.stop();
  const [found] = await stream.rows(
    `select (select array_agg(n) from effect) as effects, (select count(*)::int from tailrace.processed_message) as processed`,
  );
  return found;
}

it('no-processed-row leaves nothing that says what was handled', async () => {
  expect(await handleTwo('no-processed-row')).toEqual({ effects: [1, 2], processed: 0 });
});

it('processed-row-other-transaction loses the effect of a handler that fails', async () => {
  expect(await handleTwo('processed-row-other-transaction')).toEqual({ effects: [2], processed: 2 });
});

it('group-epoch-fence commits in a partition that has another owner', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  let attempts = 0;
  const consumer = stream
    .consumer({
      ...{ heartbeatMs: 100_000, cursorIntervalMs: 100_000 }, // the member is not to notice by itself
      database: sabotagedDatabase(stream.pool, 'group-epoch-fence'),
    })
    .on(Counted, async ({ payload }, { tx }) => {
      attempts += 1;
      await addEffect(tx, payload);
      await stream.pool.query(`update tailrace.consumer_cursor set epoch = epoch + 1, owner = 'another'`);
    });
  await stream.publish(...counts(['a'], 1));
  await consumer.start();
  await stream.untilEffects(1);
  expect(attempts).toBe(1);
});

it('drop-referenced-partition lets a partition of the outbox leave that the log names', async () => {
  await using stream = await Stream.open({ partitions: 1 });
  await stream.publish(...counts(['a'], 3));
  await stream.rows(`update tailrace.relay_batch set checkpoint = pg_current_snapshot()::text || ' '`);
  await stream.rows(`select setval(pg_get_serial_sequence('tailrace.outbox', 'position')::regclass, 2000000)`); // it is full
  const client = await openMaintenanceClient(stream.database.connectionString);
  const end = sabotageStatements('drop-referenced-partition');
  try {
    const settings = { schema: 'tailrace', holder: 'test', keepOutboxMs: 0, logger: silentLogger };
    expect(await maintain(client, settings)).toMatchObject({ droppedPartitions: 1, packedRecords: 0 });
  } finally {
    end();
    await client.end();
  }
  const [left] = await stream.rows(
    `select count(*) filter (where o.position is null)::int as missing, count(*)::int as named
       from tailrace.log_entry e cross join unnest(e.ids) id left join tailrace.outbox o on o.position = id`,
  );
  expect(left).toEqual({ missing: 3, named: 3 });
});
