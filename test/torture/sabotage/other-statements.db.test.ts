import { expect, it } from 'vitest';
import { addEffect, Counted } from '../../consumer/counted.ts';
import { counts, Stream } from '../../consumer/kit.ts';
import { sabotagedDatabase, type SabotageName } from './sabotage.ts';

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
