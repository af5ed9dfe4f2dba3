import type pg from 'pg';

/** How many customers the shop has: each is a key, and the orders of each must stay in order. */
const CUSTOMERS = 120;

const PRODUCTS = [
  'teapot',
  'kettle',
  'tea towel',
  'saucer',
  'sugar bowl',
  'strainer',
  'timer',
  'tray',
  'honey',
  'shortbread',
  'lemon',
  'oolong',
  'assam',
  'darjeeling',
  'sencha',
  'rooibos',
] as const;

const STOCK = 100_000_000;

/**
 * The order service's own tables; the service's log of what it tried; and what the two consumers write. The tables of
 * effects have no unique constraint and no foreign key: one would hide an effect that is there twice, or should not be there.
 */
const TABLES = `
  create schema shop;
  create table shop.customer (id text primary key, orders int not null default 0);
  create table shop.product (id int primary key, name text not null, price_cents int not null, stock int not null check (stock >= 0));
  create table shop.orders (
    id uuid primary key, customer_id text not null references shop.customer, n int not null, total_cents int not null,
    unique (customer_id, n)
  );
  create table shop.order_line (
    order_id uuid not null references shop.orders, product_id int not null references shop.product,
    quantity int not null, price_cents int not null, primary key (order_id, product_id)
  );

  create table shop.attempt (order_id uuid not null, outcome text not null, ended_at timestamptz not null);

  create table shop.invoice (
    id bigint generated always as identity, order_id uuid, customer_id text, n int, total_cents int,
    handled_at timestamptz, handled_by text
  );
  create table shop.customer_orders (customer_id text primary key, orders int not null, total_cents bigint not null);
  create table shop.customer_orders_effect (
    id bigint generated always as identity, order_id uuid, customer_id text, n int, total_cents int,
    handled_at timestamptz, handled_by text
  );
`;

/** Creates the demo's tables and fills the shop with customers and products. */
export async function createShop(pool: pg.Pool): Promise<void> {
  await pool.query(TABLES);
  await pool.query(`insert into shop.customer (id) select 'customer-' || i from generate_series(1, $1::int) i`, [
    CUSTOMERS,
  ]);
  await pool.query(
    `insert into shop.product (id, name, price_cents, stock)
       select nth, name, 250 + 175 * nth, $2::int from unnest($1::text[]) with ordinality p (name, nth)`,
    [PRODUCTS, STOCK],
  );
}

/** The ids of a random order's customer and products. `random` is a number in [0, 1). */
export function pickCustomer(random: number): string {
  return `customer-${1 + Math.floor(random * CUSTOMERS)}`;
}

/** One to three products, each once, in the order of their ids: locked in that order, transactions cannot deadlock. */
export function pickProducts(random: () => number): number[] {
  const count = 1 + Math.floor(random() * 3);
  const picked = Array.from({ length: count }, () => 1 + Math.floor(random() * PRODUCTS.length));
  return [...new Set(picked)].sort((a, b) => a - b);
}
