import pg from 'pg';
import { uuidV7 } from '../../src/base/uuid.ts';

/** Commits messages at an even rate over several connections, `each` in a transaction, and reports when all are committed. */
const { connectionString, perSecond, seconds, keys, each } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  perSecond: number;
  seconds: number;
  keys: number;
  each: number;
};

const pool = new pg.Pool({ connectionString, max: 4 });
const note = 'x'.repeat(270);

/** One prepared statement, which commits by itself: what writers cost is not what is measured. */
async function commit(first: number): Promise<void> {
  const messages = Array.from({ length: each }, (_, nth) => first + nth);
  await pool.query({
    name: 'publish',
    text: `insert into tailrace.outbox (message_id, topic, key, type, payload)
      select id, 'ticks', key, 'Ticked', payload from unnest($1::uuid[], $2::text[], $3::json[]) m (id, key, payload)`,
    values: [
      messages.map(() => uuidV7()),
      messages.map((n) => `key-${n % keys}`),
      messages.map((n) => JSON.stringify({ n, note })),
    ],
  });
}

const start = performance.now();
const pending: Promise<void>[] = [];
for (let n = 0; n < perSecond * seconds;) {
  const due = Math.min(perSecond * seconds, ((performance.now() - start) * perSecond) / 1000);
  for (; n < due; n += each) pending.push(commit(n));
  await new Promise((resolve) => setTimeout(resolve, 1));
}
await Promise.all(pending);
await pool.end();
process.stdout.write(`${JSON.stringify({ committed: perSecond * seconds })}\n`);
