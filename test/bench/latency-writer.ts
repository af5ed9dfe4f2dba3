import pg from 'pg';
import { createOutbox, defineEvent } from '../../src/index.ts';

/** Commits messages at an even rate over several connections, `each` in a transaction, and reports when all are committed. */
const { connectionString, perSecond, seconds, keys, each } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  perSecond: number;
  seconds: number;
  keys: number;
  each: number;
};

const Ticked = defineEvent<{ n: number; note: string }>('Ticked', {
  topic: 'ticks',
  key: ({ n }) => `key-${n % keys}`,
});
const outbox = createOutbox();
const pool = new pg.Pool({ connectionString, max: 4 });
const note = 'x'.repeat(270);

async function commit(first: number): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query('begin');
    await outbox.publish(
      client,
      Array.from({ length: each }, (_, nth) => Ticked({ n: first + nth, note })),
    );
    await client.query('commit');
  } finally {
    client.release();
  }
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
