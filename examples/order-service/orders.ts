import type { Kysely } from 'kysely';
import type pg from 'pg';
import { type Outbox, defineEvent } from 'tailrace';
import { type ConsumerOptions, createConsumer } from 'tailrace/consumer';
import { z } from 'zod';

export const OrderPlaced = defineEvent('OrderPlaced', {
  topic: 'orders',
  key: (order) => order.orderId,
  schema: z.object({ orderId: z.string(), total: z.int().positive() }),
});

export interface Tables {
  orders: { id: string; total: number };
  invoice: { order_id: string; total: number };
}

/** Stores an order and says so, both or neither. */
export async function placeOrder(db: Kysely<Tables>, outbox: Outbox, order: Tables['orders']): Promise<void> {
  await db.transaction().execute(async (tx) => {
    await tx.insertInto('orders').values(order).execute();
    await outbox.publish(tx, OrderPlaced({ orderId: order.id, total: order.total }));
  });
}

/** Writes an invoice for every order. */
export function billing(log: ConsumerOptions['log'], pool: pg.Pool) {
  return createConsumer({ log, group: 'billing', database: pool }).on(OrderPlaced, async (event, { tx }) => {
    const { orderId, total } = event.payload;
    await tx.query('insert into invoice (order_id, total) values ($1, $2)', [orderId, total]);
  });
}
