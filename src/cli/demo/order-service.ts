import type pg from 'pg';
import { uuidV7 } from '../../base/uuid.ts';
import type { Outbox } from '../../outbox/outbox.ts';
import { OrderPlaced } from './order-placed.ts';

/** An order as a customer asks for it, and how its transaction is going to end. */
export interface WantedOrder {
  readonly customerId: string;
  /** In ascending order. */
  readonly productIds: readonly number[];
  /**
   * `refuse`: everything is done, the event published, and then rolled back. `second thought`: the order is written and
   * published after a savepoint, taken back to it, and placed anew.
   */
  readonly course: 'accept' | 'refuse' | 'second thought';
}

/** How an attempt to place an order ended. Each attempt has published an event for an order id of its own. */
export interface Attempt {
  readonly orderId: string;
  readonly outcome: 'committed' | 'rolled back' | 'rolled back to a savepoint';
}

/** Places an order: one transaction for the customer, the stock, the order and its event. Returns what became of each attempt. */
export async function placeOrder(client: pg.Client, outbox: Outbox, wanted: WantedOrder): Promise<Attempt[]> {
  const attempts: Attempt[] = [];
  await client.query('begin');
  try {
    const n = await nextNumber(client, wanted.customerId);
    const totalCents = await takeFromStock(client, wanted.productIds);
    const write = (): Promise<string> => writeOrder(client, outbox, wanted, n, totalCents);
    if (wanted.course === 'second thought') {
      await client.query('savepoint before_order');
      attempts.push({ orderId: await write(), outcome: 'rolled back to a savepoint' });
      await client.query('rollback to savepoint before_order');
    }
    const orderId = await write();
    const isAccepted = wanted.course !== 'refuse';
    await client.query(isAccepted ? 'commit' : 'rollback');
    return [...attempts, { orderId, outcome: isAccepted ? 'committed' : 'rolled back' }];
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}

/** The number of the customer's next order. The row's lock, held to the end, puts the customer's orders in a line. */
async function nextNumber(client: pg.Client, customerId: string): Promise<number> {
  const result = await client.query<{ orders: number }>(
    'update shop.customer set orders = orders + 1 where id = $1 returning orders',
    [customerId],
  );
  return result.rows[0]?.orders ?? 0;
}

/** Takes one of each product; returns what they cost together. */
async function takeFromStock(client: pg.Client, productIds: readonly number[]): Promise<number> {
  let totalCents = 0;
  for (const id of productIds) {
    const result = await client.query<{ price_cents: number }>(
      'update shop.product set stock = stock - 1 where id = $1 returning price_cents',
      [id],
    );
    totalCents += result.rows[0]?.price_cents ?? 0;
  }
  return totalCents;
}

/** Writes the order with its lines, and publishes the event in the same transaction. Returns the order's id. */
async function writeOrder(
  client: pg.Client,
  outbox: Outbox,
  { customerId, productIds }: WantedOrder,
  n: number,
  totalCents: number,
): Promise<string> {
  const orderId = uuidV7();
  await client.query(
    `with placed as (
       insert into shop.orders (id, customer_id, n, total_cents) values ($1, $2, $3, $4) returning id
     )
     insert into shop.order_line (order_id, product_id, quantity, price_cents)
       select placed.id, product.id, 1, product.price_cents
       from placed, shop.product where product.id = any($5::int[])`,
    [orderId, customerId, n, totalCents, productIds],
  );
  await outbox.publish(client, OrderPlaced({ orderId, customerId, n, totalCents }));
  return orderId;
}
