import { createInterface } from 'node:readline';
import pg from 'pg';
import { createOutbox, defineEvent } from '../../src/index.ts';
import { quantile } from './report.ts';

/**
 * Commits business transactions of one message at an even rate until stdin ends. A line `measure` on stdin begins a window,
 * a line `report` ends it and prints how long the transactions took that ended in it, from BEGIN to the return of COMMIT.
 */
const { connectionString, perSecond } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  perSecond: number;
};

const CONNECTIONS = 16;
const ROWS = 10_000;
/** Every so manieth message is for the topic that members of the group read: handlers are not what is measured. */
const ORDER_EVERY = 20;
const Ticked = defineEvent<{ n: number; note: string }>('Ticked', { topic: 'ticks', key: ({ n }) => `key-${n % 100}` });
const Ordered = defineEvent<{ n: number; note: string }>('Ordered', {
  topic: 'orders',
  key: ({ n }) => `key-${n % 100}`,
});
const outbox = createOutbox();
const pool = new pg.Pool({ connectionString, max: CONNECTIONS });
const note = 'x'.repeat(270);
let window: number[] = [];
let busy = 0;
const state = { isEnding: false };

async function commitOne(n: number): Promise<void> {
  busy += 1;
  const client = await pool.connect();
  const startedAt = performance.now();
  try {
    await client.query('begin');
    await client.query({
      name: 'take',
      text: 'update stock set left_over = left_over - 1 where id = $1',
      values: [n % ROWS],
    });
    await outbox.publish(client, n % ORDER_EVERY === 0 ? Ordered({ n, note }) : Ticked({ n, note }));
    await client.query('commit');
    window.push(performance.now() - startedAt);
  } finally {
    client.release();
    busy -= 1;
  }
}

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const taken = window;
    window = [];
    if (line !== 'report') return;
    const report = { commits: taken.length, p50: quantile(taken, 0.5), p99: quantile(taken, 0.99) };
    process.stdout.write(`${JSON.stringify(report)}\n`);
  })
  .on('close', () => {
    state.isEnding = true;
  });

const start = performance.now();
for (let n = 0; !state.isEnding;) {
  const due = ((performance.now() - start) * perSecond) / 1000;
  // What cannot be done in time is left out: a queue of its own would be measured, and not the server.
  for (; n < due; n++) if (busy < CONNECTIONS) void commitOne(n);
  await new Promise((resolve) => setTimeout(resolve, 1));
}
while (busy > 0) await new Promise((resolve) => setTimeout(resolve, 1));
await pool.end();
