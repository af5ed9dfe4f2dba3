import pg from 'pg';
import { uuidV7 } from '../../src/base/uuid.ts';
import { RoundTrips } from '../../src/postgres/round-trip.ts';

/** Commits messages at an even rate over several connections, `each` in a transaction, and reports when all are committed. */
const { connectionString, perSecond, seconds, keys, each } = JSON.parse(process.argv[2] ?? '') as {
  connectionString: string;
  perSecond: number;
  seconds: number;
  keys: number;
  each: number;
};

const CONNECTIONS = 4;
const clients = Array.from({ length: CONNECTIONS }, () => new pg.Client({ connectionString }));
await Promise.all(clients.map((client) => client.connect()));
const roundTrips = new RoundTrips();
const note = 'x'.repeat(270);
const parameters = (nth: number): string =>
  `($${3 * nth + 1}::uuid, 'ticks', $${3 * nth + 2}, 'Ticked', $${3 * nth + 3}::json)`;
const text = `insert into tailrace.outbox (message_id, topic, key, type, payload)
  values ${Array.from({ length: each }, (_, nth) => parameters(nth)).join()}`;

/** One prepared statement, which commits by itself, sent as lean as can be: what writers cost is not what is measured. */
async function commit(first: number): Promise<void> {
  const messages = Array.from({ length: each }, (_, nth) => first + nth);
  const client = clients[(first / each) % CONNECTIONS];
  if (client === undefined) throw new RangeError(`No client for message ${first}.`);
  const values = messages.flatMap((n) => [uuidV7(), `key-${n % keys}`, JSON.stringify({ n, note })]);
  await roundTrips.run(client, true, [{ name: 'publish', text, values }]);
}

const start = performance.now();
const pending: Promise<void>[] = [];
for (let n = 0; n < perSecond * seconds;) {
  const due = Math.min(perSecond * seconds, ((performance.now() - start) * perSecond) / 1000);
  for (; n < due; n += each) pending.push(commit(n));
  await new Promise((resolve) => setTimeout(resolve, 1));
}
await Promise.all(pending);
await Promise.all(clients.map((client) => client.end()));
process.stdout.write(`${JSON.stringify({ committed: perSecond * seconds })}\n`);
