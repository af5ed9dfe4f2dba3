import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { describe, expect, it } from 'vitest';
import { holds, readBack, type Findings } from '../../../src/cli/demo/read-back.ts';
import { createShop } from '../../../src/cli/demo/shop-tables.ts';
import { createTestDatabase, type TestDatabase } from '../../servers/test-database.ts';

const EFFECTS = { invoices: 'shop.invoice', 'customer-orders': 'shop.customer_orders_effect' } as const;
const CUSTOMERS = ['customer-1', 'customer-2', 'customer-3'];
const ORDERS_EACH = 4;

/** A shop in which all is as it should be: twelve orders, logged, handled and counted once, in order; one rolled back. */
async function soundShop(): Promise<TestDatabase> {
  const database = await createTestDatabase();
  const { pool } = database;
  await createShop(pool);
  await pool.query(`insert into tailrace.log_topic (name, partitions) values ('orders', 2)`);
  await pool.query(`insert into tailrace.log_partition (topic, partition) values ('orders', 0), ('orders', 1)`);
  for (let n = 1; n <= ORDERS_EACH; n++) for (const customer of CUSTOMERS) await placeAndHandle(pool, customer, n);
  await pool.query(`insert into shop.attempt values (gen_random_uuid(), 'rolled back', now())`);
  await pool.query(`insert into shop.attempt values (gen_random_uuid(), 'rolled back to a savepoint', now())`);
  return database;
}

async function placeAndHandle(pool: pg.Pool, customer: string, n: number): Promise<void> {
  const orderId = randomUUID();
  await pool.query('update shop.customer set orders = $2 where id = $1', [customer, n]);
  await pool.query('insert into shop.orders values ($1, $2, $3, 100)', [orderId, customer, n]);
  await pool.query(`insert into shop.attempt values ($1, 'committed', now())`, [orderId]);
  await append(pool, await publish(pool, orderId, customer, n), customer === 'customer-3' ? 2 : 1);
  for (const table of Object.values(EFFECTS)) {
    await pool.query(`insert into ${table} (order_id, customer_id, n) values ($1, $2, $3)`, [orderId, customer, n]);
  }
  await pool.query(
    `insert into shop.customer_orders as c values ($1, 1, 100)
      on conflict (customer_id) do update set orders = c.orders + 1, total_cents = c.total_cents + 100`,
    [customer],
  );
}

async function publish(pool: pg.Pool, orderId: string, customer: string, n: number): Promise<string> {
  await pool.query(`select tailrace.publish('orders', $1, 'OrderPlaced', $2)`, [
    customer,
    JSON.stringify({ orderId, n }),
  ]);
  const result = await pool.query<{ position: string }>('select max(position) as position from tailrace.outbox');
  return result.rows[0]!.position;
}

async function append(pool: pg.Pool, position: string, partition: number): Promise<void> {
  await pool.query(
    `insert into tailrace.log_entry (partition, base, count, ids, seq)
      select $2, coalesce(max(base) + 1, 0), 1, array[$1::bigint], 1 from tailrace.log_entry where partition = $2`,
    [position, partition],
  );
}

/** What is read back after some harm was done to a sound shop. */
async function findingsAfter(...harm: string[]): Promise<Findings> {
  await using database = await soundShop();
  for (const sql of harm) await database.pool.query(sql);
  return await readBack(database.pool);
}

const EXACT = { handled: 12, lost: 0, invented: 0, doubled: 0, reordered: 0 };
const SECOND = `customer_id = 'customer-2' and n = 2`;

it('finds nothing in a sound shop', async () => {
  const findings = await findingsAfter();
  expect(findings).toEqual({
    committed: 12,
    rolledBack: 2,
    rolledBackToSavepoint: 1,
    log: { name: 'log', ...EXACT },
    consumers: [
      { name: 'invoices', ...EXACT },
      { name: 'customer-orders', ...EXACT },
    ],
    wrongInView: 0,
    isTruthSound: true,
  });
  expect(holds(findings)).toBe(true);
});

describe.each(Object.entries(EFFECTS))('of %s, finds an effect that is', (name, table) => {
  const again = `insert into ${table} (order_id, customer_id, n) select order_id, customer_id, n from ${table} where ${SECOND}`;
  it.each([
    ['lost', [`delete from ${table} where ${SECOND}`], { handled: 11, lost: 1 }],
    [
      'invented',
      [`insert into ${table} (order_id, customer_id, n) values (gen_random_uuid(), 'customer-2', 5)`],
      { handled: 13, invented: 1 },
    ],
    [
      'invented: of an order that was rolled back',
      [
        `insert into ${table} (order_id, customer_id, n) select order_id, 'customer-2', 5 from shop.attempt where outcome = 'rolled back'`,
      ],
      { handled: 13, invented: 1 },
    ],
    [
      'invented: of no order',
      [`insert into ${table} (customer_id, n) values ('customer-2', 5)`],
      { handled: 13, invented: 1 },
    ],
    ['doubled', [again], { handled: 13, doubled: 1 }],
    [
      'doubled twice',
      [again.replace('select', 'select distinct'), again.replace(' select', ' select distinct')],
      { handled: 14, doubled: 2 },
    ],
    [
      'reordered',
      [again, `delete from ${table} where id = (select min(id) from ${table} where ${SECOND})`],
      { reordered: 1 },
    ],
    [
      'lost where another is doubled',
      [again, `delete from ${table} where customer_id = 'customer-1' and n = 4`],
      { lost: 1, doubled: 1 },
    ],
  ])('%s', async (_what, harm, found) => {
    const findings = await findingsAfter(...harm);
    const others = [findings.log, ...findings.consumers].filter((account) => account.name !== name);
    expect(findings.consumers).toContainEqual({ name, ...EXACT, ...found });
    for (const other of others) expect(other).toMatchObject(EXACT);
    expect(holds(findings)).toBe(false);
  });
});

describe('of the log, finds a record that is', () => {
  const lastOf = (partition: number): string =>
    `(select base from tailrace.log_entry where partition = ${partition} order by base desc limit 1)`;
  it.each([
    ['lost', [`delete from tailrace.log_entry where partition = 2 and base = ${lastOf(2)}`], { handled: 11, lost: 1 }],
    [
      'invented: its message is not in the outbox',
      [
        `update tailrace.log_entry set ids = ids || 999999::bigint, count = 2 where partition = 2 and base = ${lastOf(2)}`,
      ],
      { handled: 13, invented: 1 },
    ],
    [
      'invented: its order was never committed',
      [
        `select tailrace.publish('orders', 'customer-3', 'OrderPlaced', '{"orderId": "6ee5ea06-8e0c-4e6d-9e3d-3f1f6a4b0c11", "n": 5}')`,
        `update tailrace.log_entry set ids = ids || (select max(position) from tailrace.outbox), count = 2 where partition = 2 and base = ${lastOf(2)}`,
      ],
      { handled: 13, invented: 1 },
    ],
    [
      'doubled',
      [`update tailrace.log_entry set ids = ids || ids, count = 2 where partition = 2 and base = ${lastOf(2)}`],
      { handled: 13, doubled: 1 },
    ],
    [
      'reordered within an entry',
      [
        `insert into tailrace.log_entry (partition, base, count, ids, seq)
          select 2, 100, 2, array_agg(ids[1] order by base desc), 2 from tailrace.log_entry where partition = 2 and base < 2`,
        `delete from tailrace.log_entry where partition = 2 and base < 2`,
        `delete from tailrace.log_entry where partition = 2 and base between 2 and 3`,
      ],
      { handled: 10, lost: 2, reordered: 1 },
    ],
    [
      'reordered between entries',
      [`update tailrace.log_entry set base = 100 where partition = 2 and base = 0`],
      { reordered: 1 },
    ],
  ])('%s', async (_what, harm, found) => {
    const findings = await findingsAfter(...harm);
    expect(findings.log).toEqual({ name: 'log', ...EXACT, ...found });
    for (const consumer of findings.consumers) expect(consumer).toMatchObject(EXACT);
    expect(holds(findings)).toBe(false);
  });
});

it.each([
  ['a wrong sum', `update shop.customer_orders set total_cents = total_cents + 1 where customer_id = 'customer-1'`],
  ['a wrong count', `update shop.customer_orders set orders = orders - 1 where customer_id = 'customer-1'`],
  ['a customer too few', `delete from shop.customer_orders where customer_id = 'customer-1'`],
  ['a customer too many', `insert into shop.customer_orders values ('customer-9', 1, 100)`],
])('finds %s in the view', async (_what, harm) => {
  const findings = await findingsAfter(harm);
  expect(findings.wrongInView).toBe(1);
  expect(holds(findings)).toBe(false);
});

it.each([
  [
    'an attempt that is said to be committed and is not',
    `insert into shop.attempt values (gen_random_uuid(), 'committed', now())`,
  ],
  [
    'an order that nobody said was committed',
    `delete from shop.attempt where ctid = (select min(ctid) from shop.attempt where outcome = 'committed')`,
  ],
  ['a customer with a hole in the numbers', `update shop.customer set orders = orders + 1 where id = 'customer-1'`],
])('trusts nothing after %s', async (_what, harm) => {
  const findings = await findingsAfter(harm);
  expect(findings.isTruthSound).toBe(false);
  expect(holds(findings)).toBe(false);
});
