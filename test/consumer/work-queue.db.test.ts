import { describe, expect, it } from 'vitest';
import {
  cloneGroup,
  cutOver,
  deleteGroup,
  seekGroup,
  setCanaryShare,
  type Consumer,
  type ConsumerOptions,
} from '../../src/consumer/index.ts';
import { addEffect, Counted, Noted } from './counted.ts';
import { counts, range, Stream, until } from './kit.ts';

const QUEUE = { mode: 'work-queue' } as const;

/** Where handlers wait, each counted, until they are let go. */
class Gate {
  inside = 0;
  readonly #open = Promise.withResolvers<undefined>();

  async pass(): Promise<void> {
    this.inside += 1;
    await this.#open.promise;
    this.inside -= 1;
  }

  open(): void {
    this.#open.resolve(undefined);
  }
}

function member(stream: Stream, memberId: string, options: Partial<ConsumerOptions> = {}, gate?: Gate): Consumer {
  return stream
    .consumer({ ...QUEUE, memberId, concurrency: 1, ...options })
    .on(Counted, async ({ payload }, { tx }) => {
      await gate?.pass();
      await addEffect(tx, payload, memberId);
    });
}

/** The numbers that had an effect, whoever made it. */
async function handled(stream: Stream): Promise<number[]> {
  return (await stream.effects()).map(({ n }) => n).sort((a, b) => a - b);
}

/** Waits until the group's places are at the ends, and nobody has anything in hand. */
async function untilFinished(stream: Stream, records: number): Promise<void> {
  await until(async () => {
    const [{ sum } = { sum: null }] = await stream.rows<{ sum: string | null }>(
      'select sum(next_offset) as sum from tailrace.consumer_cursor',
    );
    const ranges = await stream.rows('select from tailrace.work_range');
    return Number(sum) === records && ranges.length === 0;
  });
}

describe('the members of a work queue', () => {
  it('all get work, also where there are more of them than partitions', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const names = range(8).map((n) => `m${n}`);
    const gate = new Gate();
    for (const name of names) await member(stream, name, {}, gate).start();
    await stream.publish(...counts(['a'], 40));
    await until(() => gate.inside === names.length); // each of them is at work, though all have the same key
    gate.open();
    await stream.untilEffects(40);
    expect(await handled(stream)).toEqual(range(40));
    expect(new Set((await stream.effects()).map(({ member: by }) => by))).toEqual(new Set(names));
    await untilFinished(stream, 40);
  });

  it('have no more in hand than their prefetch: a slow one holds up nothing else', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    const gate = new Gate();
    const slow = member(stream, 'slow', { prefetch: { records: 3 } }, gate);
    await slow.start();
    await stream.publish(...counts(['a', 'b', 'c'], 20));
    await until(() => slow.status().inHand === 3 && gate.inside === 1);
    const quick = member(stream, 'quick');
    await quick.start();
    await stream.untilEffects(57); // all but what the slow one has
    await until(async () => {
      const hands = await stream.rows<{ member_id: string; records: number }>(
        'select member_id, sum(to_offset - from_offset)::int as records from tailrace.work_range group by 1',
      );
      return hands.length === 1 && hands[0]?.member_id === 'slow' && hands[0].records === 3;
    });
    expect(slow.status().inHand).toBe(3);
    gate.open();
    await stream.untilEffects(60);
    await untilFinished(stream, 60);
    expect(Object.values(await stream.numbers()).map((ns) => ns.sort((a, b) => a - b))).toEqual([
      range(20),
      range(20),
      range(20),
    ]);
  });

  it('leave what they have to the others at once when they stop', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const gate = new Gate();
    const leaver = member(stream, 'leaver', { drainTimeoutMs: 300_000 }, gate);
    await leaver.start();
    await stream.publish(...counts(['a'], 10));
    await until(() => gate.inside === 1 && leaver.status().inHand === 10);
    await member(stream, 'stayer').start();
    const stopping = leaver.stop();
    await stream.untilEffects(9); // while the leaver's last handler runs
    gate.open();
    await stopping;
    await stream.untilEffects(10);
    expect(await handled(stream)).toEqual(range(10));
    await untilFinished(stream, 10);
  });

  it('take what a dead one had, whose commit is refused', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const gate = new Gate();
    await stream.log.createTopic('numbers', 1);
    const deaf = { heartbeatMs: 100_000, cursorIntervalMs: 100_000, leaseMs: 300_000 };
    const zombie = member(stream, 'zombie', deaf, gate);
    await zombie.start();
    await stream.publish(...counts(['a'], 5));
    await until(() => gate.inside === 1);
    await stream.pool.query(`update tailrace.consumer_member set expires_at = now() - interval '1 second'`);
    await member(stream, 'heir', { concurrency: 4 }).start();
    await stream.untilEffects(4); // the fifth waits for the zombie's transaction
    await until(
      async () => (await stream.rows(`select from tailrace.work_range where member_id = 'zombie'`)).length === 0,
    );
    gate.open();
    await stream.untilEffects(5);
    expect((await stream.effects()).map(({ member: by }) => by)).toEqual(Array(5).fill('heir'));
    expect(await handled(stream)).toEqual(range(5));
    await untilFinished(stream, 5);
  });

  it('handle everything once while members come and go', async () => {
    const seed = Number(process.env['TAILRACE_TEST_SEED'] ?? Date.now() % 1_000_000);
    process.stdout.write(`work queue: TAILRACE_TEST_SEED=${seed}\n`);
    let state = seed;
    const random = (below: number): number => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((state / 2_147_483_648) * below);
    };
    await using stream = await Stream.open({ partitions: 3 });
    const keys = range(7).map((n) => `k${n}`);
    let running: Consumer[] = [];
    let published = 0;
    for (let turn = 0; turn < 12; turn++) {
      if (running.length === 0 || (running.length < 4 && random(3) > 0)) {
        const joins = member(stream, `m${turn}`, { prefetch: { records: 1 + random(20) }, concurrency: 1 + random(3) });
        await joins.start();
        running.push(joins);
      } else {
        const leaves = running[random(running.length)];
        running = running.filter((one) => one !== leaves);
        await leaves?.stop();
      }
      await stream.publish(...counts(keys, 10, published + 1));
      published += 10;
    }
    if (running.length === 0) await member(stream, 'last').start();
    await stream.untilEffects(7 * published);
    await untilFinished(stream, 7 * published);
    const numbers = await stream.numbers();
    for (const key of keys)
      expect(
        numbers[key]?.sort((a, b) => a - b),
        `seed ${seed}`,
      ).toEqual(range(published));
  });
});

describe('what a handler says', () => {
  it.each(['partitions', 'work-queue'] as const)(
    'is heard: a rejected message is a dead letter at once (%s)',
    async (mode) => {
      await using stream = await Stream.open({ partitions: 1 });
      const consumer = stream.consumer({ mode }).on(Counted, async ({ payload }, { tx, reject }) => {
        await addEffect(tx, payload);
        try {
          if (payload.n === 2) reject('no such customer');
        } catch {
          // what was said stands
        }
      });
      await consumer.start();
      await stream.publish(...counts(['a'], 3));
      await stream.untilEffects(2);
      await until(() => consumer.status().dead === 1);
      expect(await handled(stream)).toEqual([1, 3]);
      expect(await stream.rows('select reason, dead, attempts, error, blocks from tailrace.parked_message')).toEqual([
        { reason: 'REJECTED', dead: true, attempts: 1, error: 'no such customer', blocks: false },
      ]);
      expect(consumer.status().retried).toBe(0);
    },
  );

  it('is heard: what a member of a work queue gives back goes to another one', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const picky = stream
      .consumer({ ...QUEUE, memberId: 'picky', retries: { attempts: 1 } })
      .on(Counted, ({ payload }, { release, tx }) =>
        payload.n % 2 === 0 ? release() : addEffect(tx, payload, 'picky'),
      );
    await picky.start();
    await stream.publish(...counts(['a'], 10));
    await stream.untilEffects(5);
    await until(() => picky.status().released >= 5);
    await member(stream, 'other').start();
    await stream.untilEffects(10);
    const by = (name: string): Promise<{ n: number }[]> =>
      stream.rows('select n from effect where member = $1 and n % 2 = 0', [name]);
    expect(await by('picky')).toEqual([]);
    expect(await by('other')).toHaveLength(5);
    expect(await handled(stream)).toEqual(range(10));
    await untilFinished(stream, 10);
    expect(await stream.rows('select from tailrace.parked_message')).toEqual([]);
  });

  it.each(['partitions', 'work-queue'] as const)(
    'is heard: given back without a delay, it comes again, and is counted each time (%s)',
    async (mode) => {
      await using stream = await Stream.open({ partitions: 1 });
      let calls = 0;
      const consumer = stream
        .consumer({ mode, retries: { attempts: 1 } })
        .on(Counted, async ({ payload }, { release, tx }) => {
          calls += 1;
          if (calls <= 2) release();
          await addEffect(tx, payload);
        });
      await consumer.start();
      await stream.publish(...counts(['a'], 1));
      await stream.untilEffects(1);
      expect(consumer.status()).toMatchObject({ released: 2, retried: 0, delayed: 0, dead: 0 });
    },
  );

  it.each(['partitions', 'work-queue'] as const)(
    'is heard: given back for a time, it uses up no attempt (%s)',
    async (mode) => {
      await using stream = await Stream.open({ partitions: 1 });
      const attempts: number[] = [];
      const consumer = stream
        .consumer({ mode, retries: { attempts: 1 } })
        .on(Counted, async ({ payload }, { release, attempt, tx }) => {
          attempts.push(attempt);
          if (attempts.length <= 3) release({ delayMs: 1 });
          await addEffect(tx, payload);
        });
      await consumer.start();
      await stream.publish(...counts(['a'], 1));
      await stream.untilEffects(1);
      expect(attempts).toEqual([1, 1, 1, 1]);
      expect(await stream.rows('select from tailrace.parked_message')).toEqual([]);
      expect(consumer.status()).toMatchObject({ dead: 0, retried: 0 });
    },
  );
});

describe('in a work queue', () => {
  it('a handler that fails is tried again, delayed, and runs out of attempts, and holds up nothing of its key', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const fails = (memberId: string): Consumer =>
      stream
        .consumer({ ...QUEUE, memberId, retries: { attempts: 2, delayed: { delaysMs: [1, 1] } } })
        .on(Counted, async ({ payload }, { tx }) => {
          if (payload.n === 1) throw new Error('never');
          await addEffect(tx, payload, memberId);
        });
    const members = [fails('a'), fails('b'), fails('c')];
    for (const one of members) await one.start();
    await stream.publish(...counts(['a'], 30));
    await stream.untilEffects(29);
    await until(async () => {
      const [row] = await stream.rows<{ dead: boolean }>('select dead from tailrace.parked_message');
      return row?.dead === true;
    });
    expect(await stream.rows('select reason, attempts, blocks from tailrace.parked_message')).toEqual([
      { reason: 'HANDLER_FAILED', attempts: 4, blocks: false },
    ]);
    expect(await handled(stream)).toEqual(range(30).slice(1));
  });

  it('messages are delivered at their time, expire, and are set aside where nobody handles their type', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    for (const memberId of ['a', 'b', 'c']) await member(stream, memberId, { onUnhandledType: 'park' }).start();
    const at = (ms: number): Date => new Date(Date.now() + ms);
    await stream.publish(
      Counted({ key: 'a', n: 1 }, { deliverAt: at(3_600_000) }),
      Counted({ key: 'a', n: 2 }, { expiresAt: at(-1_000) }),
      Counted({ key: 'a', n: 3 }),
      Noted({ key: 'a', n: 4 }),
    );
    await stream.untilEffects(1);
    await until(async () => (await stream.rows('select from tailrace.parked_message')).length === 3);
    await stream.rows(`update tailrace.parked_message set due_at = now() where reason = 'NOT_DUE'`);
    await stream.untilEffects(2);
    expect((await stream.effects()).map(({ n }) => n)).toEqual([3, 1]);
    await until(async () => (await stream.rows('select from tailrace.parked_message')).length === 2);
    expect(await stream.rows('select reason, dead from tailrace.parked_message order by reason')).toEqual([
      { reason: 'EXPIRED', dead: true },
      { reason: 'UNHANDLED_TYPE', dead: false },
    ]);
  });

  it('the owner of a partition is told when another member parks something that is due soon', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const listener = await stream.pool.connect();
    const told = new Promise<unknown>((resolve) => {
      listener.on('notification', ({ payload = '{}' }) => {
        const said = JSON.parse(payload) as Record<string, unknown>;
        if ('dueMs' in said) resolve(said);
      });
    });
    await listener.query('listen tailrace_consumer');
    const failing = stream
      .consumer({ ...QUEUE, retries: { attempts: 1, delayed: { delaysMs: [1_234] } } })
      .on(Counted, () => Promise.reject(new Error('not yet')));
    await failing.start();
    await stream.publish(...counts(['a'], 1));
    expect(await told).toEqual({ group: 'counting', dueMs: expect.any(Number) as number });
    listener.release(true);
  });

  it('an open circuit takes nothing more', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const circuitBreaker = { failures: 2, wait: { initialMs: 300_000, maxMs: 300_000 } };
    const broken = stream
      .consumer({ ...QUEUE, memberId: 'broken', concurrency: 1, prefetch: { records: 4 }, circuitBreaker })
      .on(Counted, () => Promise.reject(new Error('down')));
    await broken.start();
    await stream.publish(...counts(['a'], 20));
    await until(() => broken.status().circuit === 'open');
    await member(stream, 'sound').start();
    await stream.untilEffects(16); // all but what the other had in hand
    await broken.stop();
    await stream.untilEffects(20);
    expect(await handled(stream)).toEqual(range(20));
  });

  it('handlers take batches', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    let largest = 0;
    const consumer = stream.consumer(QUEUE).onBatch(Counted, { maxRecords: 10 }, async (events, { tx }) => {
      largest = Math.max(largest, events.length);
      for (const { payload } of events) await addEffect(tx, payload);
    });
    await stream.publish(...counts(['a', 'b'], 40));
    await consumer.start();
    await stream.untilEffects(80);
    expect(largest).toBe(10);
    await untilFinished(stream, 80);
  });

  it.each(['at-least-once', 'at-most-once'] as const)('messages are handled %s', async (delivery) => {
    await using stream = await Stream.open({ partitions: 1 });
    const seen: number[] = [];
    for (const memberId of ['a', 'b', 'c']) {
      await stream
        .plainConsumer({ ...QUEUE, delivery, memberId })
        .on(Counted, ({ payload }) => void seen.push(payload.n))
        .start();
    }
    await stream.publish(...counts(['a'], 50));
    await until(() => seen.length >= 50);
    expect(seen.sort((a, b) => a - b)).toEqual(range(50));
    await untilFinished(stream, 50);
  });

  it('a seek brings messages again, also those that were in hand', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const replays = new Map<number, boolean>();
    const gate = new Gate();
    const consumer = stream
      .consumer({ ...QUEUE, concurrency: 4 })
      .on(Counted, async ({ payload }, { tx, isReplay }) => {
        if (payload.n > 10 && gate.inside < 100) await gate.pass();
        replays.set(payload.n, isReplay);
        await addEffect(tx, payload);
      });
    await consumer.start();
    await stream.publish(...counts(['a'], 10));
    await stream.untilEffects(10);
    await untilFinished(stream, 10);
    await stream.publish(...counts(['a'], 5, 11));
    await until(() => gate.inside === 4);
    const moves = await seekGroup({
      log: stream.log,
      database: stream.pool,
      group: 'counting',
      topic: 'numbers',
      to: { offset: 5n },
    });
    expect(moves).toEqual([{ partition: 0, from: 10n, to: 5n }]);
    gate.open();
    await stream.untilEffects(20);
    await untilFinished(stream, 15);
    expect(await handled(stream)).toEqual([...range(15), ...range(10).slice(5)].sort((a, b) => a - b));
    expect(
      [...replays]
        .filter(([, isReplay]) => isReplay)
        .map(([n]) => n)
        .sort((a, b) => a - b),
    ).toEqual([6, 7, 8, 9, 10]);
  });

  it('a static member that comes back takes what it had, and one that stops leaves its records to others', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const gate = new Gate();
    const fixed = { staticLeaseMs: 300_000, drainTimeoutMs: 0 };
    const before = member(stream, 'fixed', fixed, gate);
    await before.start();
    await stream.publish(...counts(['a'], 6));
    await until(() => gate.inside === 1);
    await before.stop(); // its handler does not end: undone
    const after = member(stream, 'fixed', fixed);
    await after.start();
    await stream.untilEffects(6);
    gate.open();
    await untilFinished(stream, 6);
    expect(await handled(stream)).toEqual(range(6));
  });
});

describe('the group of a work queue', () => {
  const start = (stream: Stream, memberId: string, options: Partial<ConsumerOptions> = {}): Promise<void> =>
    member(stream, memberId, options).start();

  it('has one mode, which a member that is alone may change', async () => {
    await using stream = await Stream.open({ partitions: 2 });
    const queue = member(stream, 'queue');
    await queue.start();
    await stream.publish(...counts(['a', 'b'], 5));
    await stream.untilEffects(10);
    await expect(start(stream, 'other', { mode: 'partitions' })).rejects.toMatchObject({ code: 'GROUP_IN_USE' });
    await queue.stop();
    const other = member(stream, 'other', { mode: 'partitions' });
    await other.start();
    await stream.publish(...counts(['a', 'b'], 5, 6));
    await stream.untilEffects(20);
    await expect(start(stream, 'queue')).rejects.toMatchObject({ code: 'GROUP_IN_USE' });
    await other.stop();
    await start(stream, 'queue');
    await stream.publish(...counts(['a', 'b'], 5, 11));
    await stream.untilEffects(30);
    expect(await stream.numbers()).toMatchObject({ a: expect.any(Array), b: expect.any(Array) });
    for (const numbers of Object.values(await stream.numbers()))
      expect(numbers.sort((a, b) => a - b)).toEqual(range(15));
  });

  it('hands over to another one, which handles the rest', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const gate = new Gate();
    await start(stream, 'old');
    await stream.publish(...counts(['a'], 10));
    await stream.untilEffects(10);
    const slow = member(stream, 'slow', { group: 'counting' }, gate);
    await slow.start();
    await stream.publish(...counts(['a'], 10, 11));
    await until(() => gate.inside === 1);
    const done = cutOver({ log: stream.log, database: stream.pool, from: 'counting', to: 'next', awaitMembers: false });
    await until(
      async () => (await stream.rows(`select from tailrace.consumer_group where hands_over_to = 'next'`)).length === 1,
    );
    gate.open();
    await done;
    await start(stream, 'new', { group: 'next' });
    await stream.publish(...counts(['a'], 10, 21));
    await stream.untilEffects(30);
    expect(await handled(stream)).toEqual(range(30));
    expect(await stream.rows('select mode from tailrace.consumer_group order by name')).toEqual([
      { mode: 'work-queue' },
      { mode: 'work-queue' },
    ]);
  });

  it('is cloned and deleted, and has no canaries', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const consumer = member(stream, 'one');
    await consumer.start();
    await stream.publish(...counts(['a'], 10));
    await stream.untilEffects(10);
    await untilFinished(stream, 10);
    const place = { database: stream.pool };
    await cloneGroup({ ...place, from: 'counting', to: 'twin' });
    await stream.publish(...counts(['a'], 10, 11));
    await start(stream, 'two', { group: 'twin' });
    await stream.untilEffects(30);
    expect(await handled(stream)).toEqual(
      [...range(10), ...range(20).slice(10), ...range(20).slice(10)].sort((a, b) => a - b),
    );
    await expect(setCanaryShare({ ...place, group: 'counting', percent: 10 })).rejects.toMatchObject({
      code: 'GROUP_IN_USE',
    });
    await consumer.stop();
    await expect(deleteGroup({ ...place, group: 'counting' })).resolves.toMatchObject({ places: 1, processed: 20 });
    expect(await stream.rows(`select from tailrace.work_range where group_name = 'counting'`)).toEqual([]);
  });

  it.each<[string, Partial<ConsumerOptions>]>([
    ['strict dead letters', { deadLetters: 'strict' }],
    ['canaries', { canary: true }],
    ['limits per key', { limits: [{ per: 'key', rate: 1 }] }],
    ['jumps to the end', { onOutOfRange: 'latest' }],
  ])('refuses %s', async (_what, options) => {
    await using stream = await Stream.open({ partitions: 1 });
    expect(() => stream.consumer({ ...QUEUE, ...options })).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    );
  });

  it('refuses handlers that need an order', async () => {
    await using stream = await Stream.open({ partitions: 1 });
    const strict = stream.consumer(QUEUE).on(Counted, () => undefined, { deadLetters: 'strict' });
    await expect(strict.start()).rejects.toMatchObject({ code: 'INVALID_OPTION' });
    const moving = stream.consumer(QUEUE).onBatch(Counted, { cursor: 'in-transaction' }, () => undefined);
    await expect(moving.start()).rejects.toMatchObject({ code: 'INVALID_OPTION' });
  });
});
