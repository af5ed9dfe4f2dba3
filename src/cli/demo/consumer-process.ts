import pg from 'pg';
import { postgresLog } from '../../broker/postgres/index.ts';
import { createConsumer, type Consumer, type HandlerContext } from '../../consumer/index.ts';
import { listenToPool } from '../../postgres/pool-listener.ts';
import { clientUrl } from '../../postgres/tls.ts';
import { nowMs } from './attempt-log.ts';
import { OrderPlaced, type PlacedOrder } from './order-placed.ts';
import { linkToParent, work } from './parent-link.ts';

/** What a consumer process is told. */
export interface ConsumerSettings {
  readonly databaseUrl: string;
  /** Names this process's member in each group as well. */
  readonly name: string;
  readonly leaseMs: number;
}

/** Handlers that run at once in each group, and the pool that this takes for both groups. */
const CONCURRENCY = 4;
const POOL_CLIENTS = 2 * (CONCURRENCY + 2);

const parent = linkToParent<ConsumerSettings>();
await work(() => consume(parent.settings));

/** Runs a member of each group until it is told to stop. */
async function consume({ databaseUrl, name, leaseMs }: ConsumerSettings): Promise<void> {
  const database = new pg.Pool({
    connectionString: clientUrl(databaseUrl),
    max: POOL_CLIENTS,
    application_name: `demo ${name}`,
  });
  listenToPool(database); // a connection that was lost is told by what is asked of it: the next one is another
  const log = postgresLog({ connectionString: databaseUrl });
  const member = (group: string): Consumer =>
    createConsumer({ log, group, database, memberId: name, leaseMs, concurrency: CONCURRENCY });

  const invoices = member('invoices').on(OrderPlaced, async (event, { tx }) => {
    await writeEffect(tx, 'shop.invoice', event.payload, name);
  });

  const customerOrders = member('customer-orders').on(OrderPlaced, async (event, { tx }) => {
    await addToCustomer(tx, event.payload);
    await writeEffect(tx, 'shop.customer_orders_effect', event.payload, name);
  });

  await Promise.all([invoices.start(), customerOrders.start()]);
  parent.ready();
  await parent.stopRequested;
  await Promise.all([invoices.stop(), customerOrders.stop()]);
  await log.close();
  await database.end();
}

type Tx = HandlerContext['tx'];

async function writeEffect(tx: Tx, table: string, order: PlacedOrder, handledBy: string): Promise<void> {
  await tx.query(
    `insert into ${table} (order_id, customer_id, n, total_cents, handled_at, handled_by)
       values ($1, $2, $3, $4, to_timestamp($5::float8 / 1000), $6)`,
    [order.orderId, order.customerId, order.n, order.totalCents, nowMs(), handledBy],
  );
}

async function addToCustomer(tx: Tx, { customerId, totalCents }: PlacedOrder): Promise<void> {
  await tx.query(
    `insert into shop.customer_orders as c (customer_id, orders, total_cents) values ($1, 1, $2)
       on conflict (customer_id) do update set orders = c.orders + 1, total_cents = c.total_cents + excluded.total_cents`,
    [customerId, totalCents],
  );
}
