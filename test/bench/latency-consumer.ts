import { once } from 'node:events';
import pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/index.ts';

/**
 * A consumer with an effect in its transaction, of single messages or in batches. Reports when it has handled the first
 * message, and when it has handled all `messages`; stops when stdin ends. Those of the keys of `failing` fail every time, and
 * are not counted.
 */
const {
  connectionString,
  messages,
  isBatched = false,
  failing = [],
} = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  isBatched?: boolean;
  failing?: readonly string[];
};

const Ticked = defineEvent<{ n: number }>('Ticked', { topic: 'ticks' });
const log = postgresLog({ connectionString });
const database = new pg.Pool({ connectionString, max: 12 });
const { promise: warm, resolve: whenWarm } = Promise.withResolvers<undefined>();
let begun = 0;
const consumer = createConsumer({
  log,
  group: 'latency',
  database,
  retries: { delayed: { delaysMs: Array.from({ length: 1_000 }, () => 200) } },
});
if (isBatched) {
  consumer.onBatch(Ticked, async (events, { tx }) => {
    await tx.query({
      name: 'effects',
      text: 'insert into effect (n, message_id) select * from unnest($1::int[], $2::uuid[])',
      values: [events.map(({ payload }) => payload.n), events.map(({ id }) => id)],
    });
    begun += events.length;
    whenWarm(undefined);
  });
} else {
  consumer.on(Ticked, async (event, { tx }) => {
    if (failing.includes(event.key ?? '')) throw new Error('This key fails for ever.');
    await tx.query({
      name: 'effect',
      text: 'insert into effect (n, message_id) values ($1, $2)',
      values: [event.payload.n, event.id],
    });
    begun += 1;
    whenWarm(undefined);
  });
}
await consumer.start();
await warm;
process.stdout.write(`${JSON.stringify({ started: true })}\n`);
while (begun < messages || consumer.status().running > 0) await new Promise((resolve) => setTimeout(resolve, 20));
process.stdout.write(`${JSON.stringify({ handled: begun })}\n`);
process.stdin.resume();
await once(process.stdin, 'end');
await consumer.stop();
await log.close();
await database.end();
