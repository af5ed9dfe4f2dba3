import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { postgresLog } from '../../src/broker/postgres/index.ts';
import { createConsumer } from '../../src/consumer/index.ts';
import { createOutbox } from '../../src/outbox/outbox.ts';
import { createRelay, walSource } from '../../src/relay/index.ts';
import { createTestDatabase } from '../servers/test-database.ts';
import { FailPoints } from './fail-points.ts';
import { History } from './history.ts';
import { Stepped } from './stepped.ts';
import { RELAY_POINTS, watchedLog, watchedSource } from './watched-ports.ts';
import { GROUP_POINTS, RENEWAL_POINTS, TAKEOVER_POINTS, watchStatements } from './watched-statements.ts';

/** Remembers which points were passed. */
class PassedPoints extends FailPoints {
  readonly passed = new Set<string>();

  override reach(point: string): void {
    this.passed.add(point);
  }
}

it('relays and consumers pass every point at which a fault can strike them', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tailrace-points-'));
  const history = new History(join(folder, 'history.ndjson'), 'test');
  const points = new PassedPoints(history);
  watchStatements(points);
  await using database = await createTestDatabase();
  const { connectionString, pool } = database;
  const log = postgresLog({ connectionString });
  const { signal } = new AbortController();
  await (await log.acquireWriter({ holder: 'before', leaseMs: 1_500, signal })).release(); // makes the row that is taken over
  const relay = createRelay({
    source: watchedSource(walSource({ connectionString }), points),
    log: watchedLog(log, points, history),
    holder: 'relay-1',
    leaseMs: 1_500,
  });
  const consumer = createConsumer({ log, group: 'single', database: pool, cursorIntervalMs: 50 });
  consumer.on(Stepped, () => undefined);
  const outbox = createOutbox();
  const relaying = relay.start();
  await consumer.start();
  const client = await pool.connect();
  const expected = [...RELAY_POINTS, ...RENEWAL_POINTS, ...TAKEOVER_POINTS, ...GROUP_POINTS];
  await expect
    .poll(async () => {
      await client.query('begin');
      await outbox.publish(client, Stepped({ id: 1, k: 'key', n: 1 }));
      await client.query('commit');
      return expected.filter((point) => !points.passed.has(point));
    })
    .toEqual([]);
  client.release();
  await consumer.stop();
  await relay.stop();
  await relaying;
  await log.close();
  history.close();
  await rm(folder, { recursive: true });
});
