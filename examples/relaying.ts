/**
 * Two relays of one log: one works, the other stands by and takes over. And a relay that polls.
 *
 *   node --conditions=tailrace-source examples/relaying.ts
 */
import { defineEvent } from 'tailrace';
import { postgresLog } from 'tailrace/broker/postgres';
import { createConsumer } from 'tailrace/consumer';
import { createRelay, pollingSource, walSource } from 'tailrace/relay';
import { createTestDatabase } from 'tailrace/testing';

await using database = await createTestDatabase({ connectionString: process.env['DATABASE_URL'] });
const { connectionString, pool } = database;
const OrderPlaced = defineEvent<{ orderId: string }>('OrderPlaced', { topic: 'orders' });
const publish = (orderId: string): Promise<unknown> =>
  pool.query(`select tailrace.publish('orders', $1, 'OrderPlaced', $2)`, [orderId, { orderId }]);

const log = postgresLog({ connectionString });
const first = Promise.withResolvers<string>();
const second = Promise.withResolvers<string>();
const consumer = createConsumer({ log, group: 'example', database: pool }).on(OrderPlaced, ({ payload }) => {
  (payload.orderId === 'A-1' ? first : second).resolve(payload.orderId);
});
await consumer.start();

// #region relay
const relay = createRelay({ source: walSource({ connectionString }), log });
await relay.start(); // resolves once messages flow, or once it stands by for another relay
// #endregion

// #region polling
const standby = createRelay({ source: pollingSource({ connectionString }), log });
await standby.start();
// #endregion
console.log('first relay:', relay.status().state, '- second relay:', standby.status().state);

await publish('A-1');
console.log('handled', await first.promise);
await relay.stop(); // gives its lease up: the other takes over at once
await publish('A-2');
console.log('handled', await second.promise);
console.log('first relay:', relay.status().state, '- second relay:', standby.status().state);

await consumer.stop();
await standby.stop();
await log.close();
