import { pause } from '../../../src/base/signal.ts';
import { keyHash } from '../../../src/broker/partitioner.ts';
import { closeClient, openClient } from '../../../src/postgres/connection.ts';
import type { Source } from '../../../src/relay/index.ts';

const PAGE_ROWS = 5_000;
const INTERVAL_MS = 5;

/** Polls below the oldest running transaction, in the order of transaction ids: that is not the order of the commits. */
export function pollByXid(_source: Source, databaseUrl: string): Source {
  return {
    async open() {
      const client = await openClient({ connectionString: databaseUrl, applicationName: 'sabotage' });
      const { rows } = await client.query<{ tx: string; position: string }>(
        `select o.tx, o.position from tailrace.log_entry e cross join unnest(e.ids) id
           join tailrace.outbox o on o.position = id order by o.tx desc, o.position desc limit 1`,
      );
      let last = rows[0] ?? { tx: '0', position: '0' };
      return {
        status: { mode: 'polling' },
        async next(signal) {
          for (;;) {
            signal.throwIfAborted();
            const page = await client.query<{ tx: string; position: string; topic: string; key: string | null }>(
              `select tx, position, topic, key from tailrace.outbox
                 where (tx, position) > ($1, $2) and tx < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
                 order by tx, position limit $3`,
              [last.tx, last.position, PAGE_ROWS],
            );
            last = page.rows.at(-1) ?? last;
            if (page.rows.length > 0) {
              return {
                ids: page.rows.map(({ position }) => Number(position)),
                topics: page.rows.map(({ topic }) => topic),
                keyHashes: page.rows.map(({ key }) => keyHash(key)),
                progress: '0/0',
              };
            }
            await pause(INTERVAL_MS, signal);
          }
        },
        durable: () => undefined,
        close: () => closeClient(client),
      };
    },
  };
}
