import pg from 'pg';
import { createOutbox, defineEvent } from '../../src/index.ts';

/** Commits messages at an even rate over several connections, and reports when each COMMIT had returned. */
const { connectionString, perSecond, seconds, keys } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  perSecond: number;
  seconds: number;
  keys: number;
};

const Ticked = defineEvent<{ n: number; note: string }>('Ticked', {
  topic: 'ticks',
  key: ({ n }) => `key-${n % keys}`,
});
const outbox = createOutbox();
const pool = new pg.Pool({ connectionString, max: 4 });
const committedAt: [id: string, ms: number, n: number][] = [];
const note = 'x'.repeat(270);

async function commitOne(n: number): Promise<void> {
  const client = await pool.connect();
  try {
    const message = Ticked({ n, note });
    await client.query('begin');
    await outbox.publish(client, message);
    await client.query('commit');
    committedAt.push([message.id, Date.now(), n]);
  } finally {
    client.release();
  }
}

const start = performance.now();
const pending: Promise<void>[] = [];
for (let n = 0; n < perSecond * seconds;) {
  const due = Math.min(perSecond * seconds, ((performance.now() - start) * perSecond) / 1000);
  while (n < due) pending.push(commitOne(n++));
  await new Promise((resolve) => setTimeout(resolve, 1));
}
await Promise.all(pending);
await pool.end();
process.stdout.write(`${JSON.stringify({ committedAt })}\n`);
