import type pg from 'pg';

/** One place where orders must be found, held against the orders that were committed. */
export interface Account {
  readonly name: string;
  /** Rows found. */
  readonly handled: number;
  /** Committed orders that are not there. */
  readonly lost: number;
  /** Rows of orders that were never committed. */
  readonly invented: number;
  /** Rows beyond the first of their order. */
  readonly doubled: number;
  /** Orders that come after a later one of the same customer. */
  readonly reordered: number;
}

/** What the tables say about a run. */
export interface Findings {
  readonly committed: number;
  /** Attempts whose event was published and then rolled back, with those to a savepoint. */
  readonly rolledBack: number;
  readonly rolledBackToSavepoint: number;
  readonly log: Account;
  readonly consumers: readonly Account[];
  /** Customers whose row in the view differs from what their orders add up to. */
  readonly wrongInView: number;
  /** Whether the writers' own log of attempts names exactly the committed orders. If not, nothing of the above can be trusted. */
  readonly isTruthSound: boolean;
}

/**
 * Reads everything back by SQL. The truth is `shop.orders`, a plain table that committed with the orders; `n` in it counts a
 * customer's orders in the order of their commits.
 */
export async function readBack(pool: pg.Pool): Promise<Findings> {
  const [truth, log, invoices, customerOrders, wrongInView] = [
    await readTruth(pool),
    await readAccount(pool, 'log', LOG_ROWS),
    await readAccount(pool, 'invoices', effectRows('shop.invoice')),
    await readAccount(pool, 'customer-orders', effectRows('shop.customer_orders_effect')),
    await countWrongInView(pool),
  ];
  return { ...truth, log, consumers: [invoices, customerOrders], wrongInView };
}

/** Whether everything that was promised holds. */
export function holds({ committed, log, consumers, wrongInView, isTruthSound }: Findings): boolean {
  const accounts = [log, ...consumers];
  return isTruthSound && wrongInView === 0 && accounts.every((account) => isExact(account, committed));
}

function isExact({ handled, lost, invented, doubled, reordered }: Account, committed: number): boolean {
  return handled === committed && lost + invented + doubled + reordered === 0;
}

type Truth = Pick<Findings, 'committed' | 'rolledBack' | 'rolledBackToSavepoint' | 'isTruthSound'>;

async function readTruth(pool: pg.Pool): Promise<Truth> {
  return readRow<Truth>(
    pool,
    `select (select count(*) from shop.orders)::int as "committed",
       (select count(*) from shop.attempt where outcome <> 'committed')::int as "rolledBack",
       (select count(*) from shop.attempt where outcome = 'rolled back to a savepoint')::int as "rolledBackToSavepoint",
       not exists (select order_id from shop.attempt where outcome = 'committed' except all select id from shop.orders)
         and not exists (select id from shop.orders except all select order_id from shop.attempt where outcome = 'committed')
         and not exists (select from shop.customer c where orders <> (select count(*) from shop.orders where customer_id = c.id))
         as "isTruthSound"`,
  );
}

/** The rows of a table of effects, in the order in which they were written. */
function effectRows(table: string): string {
  return `select id as place, order_id, customer_id, n from ${table}`;
}

/** The records of the log, joined to the outbox rows that they stand for, in the order of their offsets. */
const LOG_ROWS = `
  select row_number() over (order by p.partition, e.base + x.nth) as place,
    (o.payload ->> 'orderId')::uuid as order_id, o.key as customer_id, (o.payload ->> 'n')::int as n
  from tailrace.log_entry e
  join tailrace.log_partition p on p.id = e.partition and p.topic = 'orders'
  cross join lateral unnest(e.ids) with ordinality x (position, nth)
  left join tailrace.outbox o on o.position = x.position`;

/** For the order only the first row of each order counts: a repetition is doubled, not reordered. */
async function readAccount(pool: pg.Pool, name: string, rows: string): Promise<Account> {
  const counts = await readRow<Omit<Account, 'name'>>(
    pool,
    `with found as materialized (${rows}),
     firsts as (select customer_id, n, min(place) as place from found group by order_id, customer_id, n),
     steps as (
       select n, max(n) over (partition by customer_id order by place rows between unbounded preceding and 1 preceding) as highest
       from firsts
     )
     select (select count(*) from found)::int as "handled",
       (select count(*) from shop.orders o where not exists (select from found f where f.order_id = o.id))::int as "lost",
       (select count(*) from found f where not exists (select from shop.orders o where o.id = f.order_id))::int as "invented",
       (select count(order_id) - count(distinct order_id) from found)::int as "doubled",
       (select count(*) from steps where n < highest)::int as "reordered"`,
  );
  return { name, ...counts };
}

async function countWrongInView(pool: pg.Pool): Promise<number> {
  const { wrong } = await readRow<{ wrong: number }>(
    pool,
    `with truth as (select customer_id, count(*) as orders, sum(total_cents) as total_cents from shop.orders group by customer_id)
     select count(*)::int as wrong from truth t full join shop.customer_orders v using (customer_id)
     where (t.orders, t.total_cents) is distinct from (v.orders::bigint, v.total_cents)`,
  );
  return wrong;
}

async function readRow<Row extends object>(pool: pg.Pool, sql: string): Promise<Row> {
  const result = await pool.query<Row>(sql);
  const [row] = result.rows;
  if (row === undefined) throw new Error('The server answered no row.');
  return row;
}
