import { once } from 'node:events';
import pg from 'pg';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { defineEvent } from '../../src/index.ts';

/**
 * A consumer with an effect in its transaction. Reports when each handler began; stops when stdin ends. `messages` are to be
 * handled; those of the keys of `failing` fail every time, and are not counted.
 */
const {
  connectionString,
  messages,
  failing = [],
} = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  messages: number;
  failing?: readonly string[];
};

const Ticked = defineEvent<{ n: number }>('Ticked', { topic: 'ticks' });
const log = postgresLog({ connectionString });
const database = new pg.Pool({ connectionString, max: 12 });
const handledAt: [id: string, ms: number][] = [];
const { promise: warm, resolve: whenWarm } = Promise.withResolvers<undefined>();
const { promise: all, resolve: whenAll } = Promise.withResolvers<undefined>();
const consumer = createConsumer({
  log,
  group: 'latency',
  database,
  retries: { delayed: { delaysMs: Array.from({ length: 1_000 }, () => 200) } },
}).on(Ticked, async (event, { tx }) => {
  if (failing.includes(event.key ?? '')) throw new Error('This key fails for ever.');
  if (event.payload.n < 0) {
    whenWarm(undefined);
    return;
  }
  handledAt.push([event.id, Date.now()]);
  await tx.query('insert into effect (n) values ($1)', [event.payload.n]);
  if (handledAt.length === messages) whenAll(undefined);
});
await consumer.start();
await warm;
process.stdout.write(`${JSON.stringify({ started: true })}\n`);
await all;
process.stdout.write(`${JSON.stringify({ handledAt })}\n`);
process.stdin.resume();
await once(process.stdin, 'end');
await consumer.stop();
await log.close();
await database.end();
