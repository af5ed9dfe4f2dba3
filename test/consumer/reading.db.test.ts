import { describe, expect, it } from 'vitest';
import { TailraceError } from '../../src/base/errors.ts';
import type { FetchPosition, Log } from '../../src/broker/log.ts';
import type { LogRecord } from '../../src/broker/record.ts';
import { keyHash, partitionOf } from '../../src/broker/partitioner.ts';
import { addEffect, Counted } from './counted.ts';
import { counts, listeningLogger, range, Stream, until } from './kit.ts';

type Fetch = Log['fetch'];

/** The same log, with something before or after each fetch. */
function around(log: Log, fetch: (inner: Fetch, ...call: Parameters<Fetch>) => Promise<LogRecord[]>): Log {
  return {
    capabilities: log.capabilities,
    partitionCount: (topic) => log.partitionCount(topic),
    ends: (topic) => log.ends(topic),
    offsetsAt: (topic, time) => log.offsetsAt(topic, time),
    close: () => log.close(),
    fetch: (positions, options) => fetch((...call) => log.fetch(...call), positions, options),
  };
}

const asksFor = (positions: readonly FetchPosition[], partition: number): boolean =>
  positions.some((position) => position.partition === partition);

/** A key of each of two partitions. */
const [inZero, inOne] = [0, 1].map((partition) =>
  ['a', 'b', 'c', 'd', 'e', 'f'].find((key) => partitionOf(keyHash(key), 2) === partition)!,
) as [string, string];

describe('reading ahead', () => {
  it('holds no more records than it may, and a blocked partition leaves the others their room', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    await stream.publish(...counts([inZero, inOne], 200));
    const gate = Promise.withResolvers<undefined>();
    let most = 0;
    const watched = around(stream.log, async (fetch, ...call) => {
      const records = await fetch(...call);
      most = Math.max(most, consumer.status().prefetched + records.length);
      return records;
    });
    const consumer = stream
      .consumer({ log: watched, prefetch: { records: 40 } })
      .on(Counted, async ({ payload }, { tx }) => {
        if (payload.key === inZero) await gate.promise;
        await addEffect(tx, payload);
      });
    await consumer.start();
    await stream.untilEffects(200);
    expect(await stream.numbers()).toEqual({ [inOne]: range(200) });
    gate.resolve(undefined);
    await stream.untilEffects(400);
    expect((await stream.numbers())[inZero]).toEqual(range(200));
    expect(most).toBeGreaterThan(10);
    expect(most).toBeLessThanOrEqual(40);
  });

  it('holds no more bytes than it may', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['x'.repeat(1_000)], 100)); // about 2,500 bytes each in memory
    let most = 0;
    const watched = around(stream.log, async (fetch, ...call) => {
      const records = await fetch(...call);
      most = Math.max(most, consumer.status().prefetched + records.length);
      return records;
    });
    const consumer = stream
      .consumer({ log: watched, prefetch: { bytes: 50_000 } })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await stream.untilEffects(100);
    expect(most).toBeLessThan(40);
  });
});

describe('a log that fails', () => {
  it('is asked again', async () => {
    await using stream = await Stream.open();
    await stream.publish(...counts(['a'], 3));
    let isMended = false;
    let failures = 0;
    const flaky = around(stream.log, (fetch, ...call) => {
      if (isMended) return fetch(...call);
      failures += 1;
      return Promise.reject(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }));
    });
    const consumer = stream.consumer({ log: flaky }).on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await until(() => failures > 1);
    expect(consumer.status().problem).toContain('ECONNRESET');
    isMended = true;
    await stream.untilEffects(3);
    await until(() => consumer.status().problem === undefined);
  });

  it('in one partition stops that one alone, says so, and lets it go on once it can', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    await stream.publish(...counts([inZero, inOne], 3));
    let isMended = false;
    const logger = listeningLogger();
    const dangling = around(stream.log, (fetch, positions, options) => {
      if (isMended || !asksFor(positions, 0)) return fetch(positions, options);
      return Promise.reject(new TailraceError('DANGLING_ENTRY', 'A message is gone.'));
    });
    const consumer = stream
      .consumer({ log: dangling, logger })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await stream.untilEffects(3);
    expect(await stream.numbers()).toEqual({ [inOne]: range(3) });
    expect(consumer.status().problem).toBe('A message is gone.');
    expect(logger.lines).toContainEqual(
      expect.objectContaining({ level: 'error', fields: expect.objectContaining({ partition: 0 }) }),
    );
    isMended = true;
    await stream.untilEffects(6);
    await until(() => consumer.status().problem === undefined);
  });
});

describe('a member', () => {
  it('that starts anew under its old name takes its partitions at once, without waiting for its lease', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    await stream.publish(...counts(['a'], 2));
    await stream.pool.query(
      `insert into tailrace.consumer_group (name) values ('counting');
       insert into tailrace.consumer_member values ('counting', 'steady', '{numbers}', now() + interval '1 day');
       insert into tailrace.consumer_cursor values ('counting', 'numbers', 0, 1, 7, 'steady', 'steady')`,
    );
    const consumer = stream
      .consumer({ memberId: 'steady' })
      .on(Counted, ({ payload }, { tx }) => addEffect(tx, payload));
    await consumer.start();
    await stream.untilEffects(1);
    expect(await stream.numbers()).toEqual({ a: [2] });
    expect(consumer.status().assignments).toMatchObject([{ epoch: 8n }]);
  });

  it('stops although its database is gone', async () => {
    await using stream = await Stream.open();
    let isGone = false;
    const logger = listeningLogger();
    const gone = new Error('connect ECONNREFUSED');
    const consumer = stream
      .consumer({
        logger,
        database: { connect: () => (isGone ? Promise.reject(gone) : stream.pool.connect()), options: { max: 20 } },
      })
      .on(Counted, () => undefined);
    await consumer.start();
    isGone = true;
    await stream.pool.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()`,
    );
    await until(() => consumer.status().problem !== undefined);
    await consumer.stop();
    expect(logger.lines.map(({ message }) => message)).toContain('Could not leave the group; the lease will run out');
  });
});
