import type pg from 'pg';
import { quoteSchema } from '../postgres/schema-name.ts';
import { notFound } from './failure.ts';

/** @throws CommandFailure `NOT_FOUND`: no group of this name is in the database. */
export async function assertGroup(client: pg.Client, schema: string, group: string): Promise<void> {
  const { rowCount } = await client.query(`select from ${quoteSchema(schema)}.consumer_group where name = $1`, [group]);
  if (rowCount !== 0) return;
  throw notFound(
    `There is no group ${JSON.stringify(group)} in this database. tailrace groups lists those that exist; they live in the database that their handlers write to.`,
  );
}
