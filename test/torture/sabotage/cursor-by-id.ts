import { pause } from '../../../src/base/signal.ts';
import { keyHash } from '../../../src/broker/partitioner.ts';
import { closeClient, openClient } from '../../../src/postgres/connection.ts';
import type { Source } from '../../../src/relay/index.ts';

const PAGE_ROWS = 5_000;
const INTERVAL_MS = 5;

/** Polls for rows behind the highest id that was seen: a commit with a lower one that comes later is never seen. */
export function cursorById(_source: Source, databaseUrl: string): Source {
  return {
    async open() {
      const client = await openClient({ connectionString: databaseUrl, applicationName: 'sabotage' });
      const { rows } = await client.query<{ last: string }>(
        'select coalesce(max(id), 0) as last from tailrace.log_entry e, unnest(e.ids) id',
      );
      let last = Number(rows[0]?.last ?? 0);
      return {
        status: { mode: 'polling' },
        async next(signal) {
          for (;;) {
            signal.throwIfAborted();
            const page = await client.query<{ position: string; topic: string; key: string | null }>(
              'select position, topic, key from tailrace.outbox where position > $1 order by position limit $2',
              [last, PAGE_ROWS],
            );
            if (page.rows.length > 0) {
              last = Number(page.rows.at(-1)?.position ?? last);
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
