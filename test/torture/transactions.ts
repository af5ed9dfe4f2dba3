import type pg from 'pg';
import { pause } from '../../src/base/signal.ts';
import { createOutbox, type Outbox } from '../../src/outbox/outbox.ts';
import type { FailPoints } from './fail-points.ts';
import type { Random } from './random.ts';
import { Stepped } from './stepped.ts';
import { FREE_KEYS, HUGE_KEYS, KEYS, NOT_YET_KNOWN, STRICT_KEYS } from './tables.ts';

/** The points at which a writer can be made to die or to stand still. */
export const WRITER_POINTS = ['step.before', 'publish.after', 'commit.before', 'commit.sent', 'commit.after'] as const;

/** What a transaction works with. */
export interface TransactionTools {
  readonly client: pg.Client;
  readonly outbox: Outbox;
  readonly random: Random;
  readonly points: FailPoints;
  /** The ids of this transaction's messages, in order; as many as {@link Variant.messages} says. */
  readonly ids: readonly number[];
}

/** `rolled back`: none of the messages was committed. `unknown`: the connection was cut while COMMIT was under way. */
type Ended = { readonly committed: readonly number[]; readonly rolledBack: readonly number[] } | 'unknown';

/** One way of writing messages. */
export interface Variant {
  readonly name: string;
  /** How often it comes, in a thousand. */
  readonly weight: number;
  readonly messages: (random: Random) => number;
  readonly run: (tools: TransactionTools) => Promise<Ended>;
}

const one = (): number => 1;
const committed = (ids: readonly number[]): Ended => ({ committed: ids, rolledBack: [] });

export const VARIANTS: readonly Variant[] = [
  {
    name: 'one statement',
    weight: 690,
    messages: one,
    async run({ client, random, ids, points }) {
      points.reach('step.before');
      const pending = client.query({
        name: 'step',
        text: 'select torture.step($1, $2)',
        values: [random.pick(KEYS), ids[0]],
      });
      points.reach('commit.sent');
      await pending;
      return committed(ids);
    },
  },
  {
    name: 'outbox',
    weight: 130,
    messages: one,
    async run({ client, outbox, random, ids: [id = 0], points }) {
      const k = random.pick(KEYS);
      await client.query('begin');
      points.reach('step.before');
      const { rows } = await client.query<{ n: string }>('update torture.agg set n = n + 1 where k = $1 returning n', [
        k,
      ]);
      const n = Number(rows[0]?.n);
      await client.query('insert into torture.truth values ($1, $2, $3)', [id, k, n]);
      await outbox.publish(client, Stepped({ id, k, n }));
      points.reach('publish.after');
      await commit(client, points);
      return committed([id]);
    },
  },
  {
    name: 'many keys',
    weight: 40,
    messages: (random) => random.whole(2, 8),
    async run({ client, random, ids, points }) {
      await client.query('begin');
      await client.query('select torture.steps($1, $2)', [sortedKeys(random, ids.length), ids]);
      points.reach('publish.after');
      await commit(client, points);
      return committed(ids);
    },
  },
  {
    name: 'rolled back',
    weight: 30,
    messages: one,
    async run({ client, random, ids }) {
      await client.query('begin');
      await client.query('select torture.step($1, $2)', [random.pick(KEYS), ids[0]]);
      await client.query('rollback');
      return { committed: [], rolledBack: ids };
    },
  },
  {
    name: 'savepoint',
    weight: 30,
    messages: () => 2,
    async run({ client, random, ids: [taken = 0, kept = 0], points }) {
      const key = random.pick(KEYS);
      await client.query('begin');
      await client.query('savepoint before');
      await client.query('select torture.step($1, $2)', [key, taken]);
      await client.query('rollback to savepoint before');
      await client.query('select torture.step($1, $2)', [key, kept]);
      await commit(client, points);
      return { committed: [kept], rolledBack: [taken] };
    },
  },
  {
    // The position is handed out, then others commit, then this one.
    name: 'position early, commit late',
    weight: 25,
    messages: one,
    async run({ client, random, ids, points }) {
      await client.query('begin');
      await client.query('select torture.step($1, $2)', [random.pick(KEYS), ids[0]]);
      await pause(random.whole(5, 60));
      await commit(client, points);
      return committed(ids);
    },
  },
  {
    // Others of the same key commit between the transaction id and the lock.
    name: 'transaction id early, key late',
    weight: 20,
    messages: one,
    async run({ client, random, ids, points }) {
      await client.query('begin');
      await client.query('select pg_current_xact_id()');
      await pause(random.whole(5, 80));
      await client.query('select torture.step($1, $2)', [random.pick(KEYS), ids[0]]);
      await commit(client, points);
      return committed(ids);
    },
  },
  {
    // The position is handed out before the key's row is locked: only the lock that was asked for puts it in order.
    name: 'strict key order',
    weight: 20,
    messages: one,
    run: (tools) => publishThenCount(tools, STRICT, STRICT_KEYS),
  },
  {
    name: 'no lock at all',
    weight: 10,
    messages: one,
    run: (tools) => publishThenCount(tools, tools.outbox, FREE_KEYS),
  },
  {
    name: 'cut at COMMIT',
    weight: 4,
    messages: one,
    async run({ client, random, ids }) {
      await client.query('begin');
      await client.query('select torture.step($1, $2)', [random.pick(KEYS), ids[0]]);
      client.query('commit').catch(() => undefined); // nobody waits for the answer
      if (random.chance(0.5)) await pause(0);
      client.connection.stream.destroy();
      return 'unknown';
    },
  },
  {
    name: 'large',
    weight: 1,
    messages: (random) => random.whole(50, 250),
    async run({ client, random, ids, points }) {
      await client.query('begin');
      await client.query('select torture.leap($1, $2, $3)', [random.pick(HUGE_KEYS), ids[0], ids.length]);
      await commit(client, points);
      return committed(ids);
    },
  },
];

const STRICT = createOutbox({ strictKeyOrder: true });

async function publishThenCount(
  { client, random, ids: [id = 0], points }: TransactionTools,
  outbox: Outbox,
  keys: readonly string[],
): Promise<Ended> {
  const k = random.pick(keys);
  await client.query('begin');
  await outbox.publish(client, Stepped({ id, k, n: NOT_YET_KNOWN }));
  await pause(random.whole(0, 20));
  await client.query('select torture.count_up($1, $2)', [k, id]);
  await commit(client, points);
  return committed([id]);
}

async function commit(client: pg.Client, points: FailPoints): Promise<void> {
  points.reach('commit.before');
  const pending = client.query('commit');
  points.reach('commit.sent');
  await pending;
  points.reach('commit.after');
}

/** In ascending order, so that two transactions cannot wait for each other. A key may come twice. */
function sortedKeys(random: Random, count: number): string[] {
  return Array.from({ length: count }, () => random.pick(KEYS)).sort();
}

/** Draws a variant by its weight. */
export function drawVariant(random: Random): Variant {
  let left = random.next() * VARIANTS.reduce((sum, { weight }) => sum + weight, 0);
  for (const variant of VARIANTS) {
    left -= variant.weight;
    if (left < 0) return variant;
  }
  throw new RangeError('The weights do not add up.');
}
