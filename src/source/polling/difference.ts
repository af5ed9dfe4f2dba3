import type pg from 'pg';
import { keyHash } from '../../broker/partitioner.ts';
import { RoundTrips, type TextRow } from '../../postgres/round-trip.ts';
import { Snapshot } from '../../postgres/snapshot.ts';
import { emptyColumns, type OutboxColumns } from '../batch.ts';

/** Rows of a {@link difference}, in outbox order. */
export interface DifferencePage {
  readonly rows: OutboxColumns;
  /** Set on the last page: everything that this snapshot sees and the former one did not has been given. */
  readonly complete: Snapshot | undefined;
}

type Row = [position: string, topic: string, key: string | null];

const COLUMNS = 'o.position, o.topic, o.key';

/**
 * The outbox rows that are visible now and were not in `from`, ordered by position, in pages of at most `pageRows`. When
 * they do not fit in one page, the snapshot of the first page is kept for all the others: only so are the pages together
 * one moment's view. Runs outside a transaction, so it holds no snapshot between pages.
 *
 * Exact (nothing lost, doubled, or out of order within a key whose lock the writers hold) because a snapshot, and not a
 * number, tells what was seen. The technique is PgQ's.
 */
export async function* difference(
  client: pg.ClientBase,
  quotedSchema: string,
  from: Snapshot,
  pageRows: number,
): AsyncGenerator<DifferencePage, void, undefined> {
  const outbox = `${quotedSchema}.outbox`;
  const first = await firstPage(client, outbox, from, pageRows);
  if (first.rows.ids.length < pageRows) {
    yield { rows: first.rows, complete: first.snapshot };
    return;
  }
  yield { rows: first.rows, complete: undefined };
  yield* laterPages(client, outbox, from, first.snapshot, first.rows.ids.at(-1) ?? 0, pageRows);
}

async function firstPage(
  client: pg.ClientBase,
  outbox: string,
  from: Snapshot,
  pageRows: number,
): Promise<{ rows: OutboxColumns; snapshot: Snapshot }> {
  // position+0 keeps the planner from walking the primary key instead of the index on tx.
  const result = await client.query<[snapshot: string, ...(Row | [null, null, null])]>({
    rowMode: 'array',
    text: `with b as materialized (select pg_current_snapshot()::text s)
      select b.s, ${COLUMNS} from b left join (
        select ${COLUMNS} from ${outbox} o where o.tx >= $1 or o.tx = any($2::bigint[]) order by o.position+0 limit $3
      ) o on true order by o.position`,
    values: [from.xmax, from.inProgress, pageRows],
  });
  const rows = emptyColumns();
  for (const [, ...row] of result.rows) if (isRow(row)) addRow(rows, row);
  return { rows, snapshot: Snapshot.parse(result.rows[0]?.[0] ?? '') };
}

function isRow(row: Row | [null, null, null]): row is Row {
  return row[0] !== null;
}

function addRow(rows: OutboxColumns, [position, topic, key]: TextRow): void {
  rows.ids.push(Number(position));
  rows.topics.push(topic ?? '');
  rows.keyHashes.push(keyHash(key ?? null));
}

async function* laterPages(
  client: pg.ClientBase,
  outbox: string,
  from: Snapshot,
  to: Snapshot,
  after: number,
  pageRows: number,
): AsyncGenerator<DifferencePage, void, undefined> {
  const within = `(o.tx >= $1 or o.tx = any($2::bigint[])) and o.tx < $3 and o.tx <> all($4::bigint[])`;
  const snapshots = [from.xmax, from.inProgress, to.xmax, to.inProgress];
  const roundTrips = new RoundTrips(); // rows without pg's own results: half of what a page costs this process
  const bounds = async (above: number): Promise<[first: number, last: number] | undefined> => {
    const result = await client.query<[string | null, string | null]>({
      rowMode: 'array',
      text: `select min(o.position+0), max(o.position+0) from ${outbox} o where ${within} and o.position > $5`,
      values: [...snapshots, above],
    });
    const [first, last] = result.rows[0] ?? [null, null];
    return first === null ? undefined : [Number(first), Number(last)];
  };

  const page = async (above: number): Promise<OutboxColumns> => {
    const [found = []] = await roundTrips.run(client, true, [
      {
        name: `tailrace page ${outbox}`,
        text: `select o.position::text, o.topic, o.key from ${outbox} o
          where ${within} and o.position > $5::bigint and o.position <= $6::bigint order by o.position`,
        values: [...snapshots.map(asText), String(above), String(above + pageRows)],
      },
    ]);
    const rows = emptyColumns();
    for (const row of found) addRow(rows, row);
    return rows;
  };

  // What follows is likely to follow at once: where it does not, a page is empty, and is asked where it goes on.
  let last = await lastPosition(client, outbox);
  let low = after;
  let next = low < last ? page(low) : undefined;
  while (next !== undefined) {
    const rows = await next;
    low += pageRows;
    if (rows.ids.length === 0) {
      const range = await bounds(low);
      [low, last] = range === undefined ? [last, last] : [Math.max(low, range[0] - 1), range[1]];
    }
    next = low < last ? page(low) : undefined; // read while the rows before are appended
    next?.catch(() => undefined); // whoever asks for the next page hears of it
    if (rows.ids.length === 0) continue;
    yield { rows, complete: next === undefined ? to : undefined };
    if (next === undefined) return;
  }
  yield { rows: emptyColumns(), complete: to };
}

/** Above all rows that are visible; 0 where there are none. */
async function lastPosition(client: pg.ClientBase, outbox: string): Promise<number> {
  const { rows } = await client.query<{ last: string | null }>(`select max(position) as last from ${outbox}`);
  return Number(rows[0]?.last ?? 0);
}

function asText(value: unknown): string {
  return Array.isArray(value) ? `{${value.join()}}` : String(value);
}
