import type pg from 'pg';
import { messageOf } from '../base/errors.ts';
import { pause } from '../base/signal.ts';
import type { PartitionEnds } from '../broker/log.ts';
import { sqlStateOf } from '../postgres/sqlstate.ts';
import type { ConsumerSettings } from './options.ts';

/** Attaching a partition waits for transactions that wrote into the default one; handlers' inserts would queue behind it. */
const ATTACH_TIMEOUT_MS = 5_000;
/** Nobody but handlers of messages as old as the week waits behind these locks. */
const WEEK_TIMEOUT_MS = 2_000;
/** All handlers wait behind this one. */
const TABLE_TIMEOUT_MS = 250;
const DROP_TRIES = 3;
const DROP_PAUSE_MS = 2_000;

const HOUR_MS = 3600 * 1000;
const DAY_MS = 24 * HOUR_MS;
/** What does not answer for so long once the consumer stops is closed. */
const STOP_WITHIN_MS = 5_000;

/** What stands for ever, in `consumer_group.dedupe_window_ms`. */
const FOR_EVER = 2n ** 63n - 1n;

/** A place that has to come to an offset before old rows of `processed_message` may leave. */
export interface Hold {
  readonly topic: string;
  readonly partition: number;
  readonly nextOffset: bigint;
  readonly untilOffset: bigint;
  /** Records below it may come from the inbox, whatever the log has. */
  readonly storedTo?: bigint;
}

type UpkeepSettings = Pick<
  ConsumerSettings,
  'database' | 'schema' | 'group' | 'memberId' | 'logger' | 'log' | 'dedupeWindowMs'
>;

/**
 * Looks after the partitions of `processed_message`, when it starts and once an hour: has the database make those of the next
 * weeks, and lets rows leave that no group needs. Never throws, and says what fails: without partitions the rows go to the
 * default one, where they are as good, and what does not leave now leaves later.
 */
export class ProcessedUpkeep {
  readonly #settings: UpkeepSettings;
  readonly #stopping = new AbortController();
  readonly #tooLate = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();

  constructor(settings: UpkeepSettings) {
    this.#settings = settings;
  }

  /** Resolves once there are partitions; what leaves, leaves later. */
  async start(): Promise<void> {
    await this.#ensure();
    this.#running = this.#leave();
    this.#timer = setInterval(() => {
      this.#running = this.#running.then(() => this.#ensure()).then(() => this.#leave());
    }, HOUR_MS);
  }

  /** Waits for what is under way, and closes its connection if that does not answer. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#stopping.abort();
    const ended = new AbortController();
    const running = this.#running.then(() => ended.abort());
    await pause(STOP_WITHIN_MS, ended.signal);
    this.#tooLate.abort();
    await running;
  }

  async #ensure(): Promise<void> {
    await this.#attempt('Could not make partitions of processed_message ahead of time', (client) =>
      this.#call(client, 'ensure_processed_partitions', ATTACH_TIMEOUT_MS),
    );
  }

  async #leave(): Promise<void> {
    await this.#attempt('Old rows of processed_message could not leave; tried again later', async (client) => {
      await this.#storeWindow(client);
      for (let step = 1; step <= 3; step += 1) await this.#expire(client); // ends a round, begins one, ends it if it may
      await this.#tellHeld(client);
      await this.#drop(client);
    });
  }

  /** Emptied partitions are in nobody's way: where handlers never pause, they are dropped another time. */
  async #drop(client: pg.PoolClient): Promise<void> {
    const { group, logger } = this.#settings;
    for (let tries = 1; !this.#stopping.signal.aborted; tries += 1) {
      try {
        const dropped = await this.#call(client, 'drop_processed_partitions', TABLE_TIMEOUT_MS);
        if (dropped > 0) {
          logger.info({ group, partitions: dropped }, 'Old partitions of processed_message were dropped');
        }
        return;
      } catch (error) {
        if (tries === DROP_TRIES || !isBusy(error)) throw error;
        await pause(DROP_PAUSE_MS, this.#stopping.signal);
      }
    }
  }

  /** A place that does not move on keeps the rows of all groups. */
  async #tellHeld(client: pg.PoolClient): Promise<void> {
    const { schema, group, logger } = this.#settings;
    const { rows } = await client.query<{ ms: number }>(
      `select (extract(epoch from clock_timestamp() - began_at) * 1000)::float8 as ms from ${schema}.processed_round`,
    );
    if ((rows[0]?.ms ?? 0) < DAY_MS) return;
    const [first, ...others] = await readHolds(client, this.#settings);
    if (first === undefined) return;
    const { topic, partition, nextOffset, untilOffset } = first;
    logger.warn(
      { group, topic, partition, nextOffset: `${nextOffset}`, untilOffset: `${untilOffset}`, others: others.length },
      'Old rows of processed_message stay, since what lies between this place of the group and there may come again',
    );
  }

  async #expire(client: pg.PoolClient): Promise<void> {
    await this.#tightenHolds(client);
    const emptied = await this.#call(client, 'expire_processed_messages', WEEK_TIMEOUT_MS);
    const { group, logger } = this.#settings;
    if (emptied > 0) logger.info({ group, partitions: emptied }, 'Old partitions of processed_message were emptied');
  }

  /** All members of a group have to be given one; else it is that of whoever looked last. */
  async #storeWindow(client: pg.PoolClient): Promise<void> {
    const { schema, group, dedupeWindowMs, logger } = this.#settings;
    const ms = dedupeWindowMs === false ? FOR_EVER.toString() : dedupeWindowMs;
    const { rows } = await client.query<{ former: string | null }>(
      `update ${schema}.consumer_group g set dedupe_window_ms = $2
        from (select name, dedupe_window_ms as former from ${schema}.consumer_group where name = $1) f
        where g.name = f.name and g.dedupe_window_ms is distinct from $2 returning f.former::text`,
      [group, ms],
    );
    const [changed] = rows;
    if (changed === undefined || changed.former === null) return;
    logger.info({ group, formerMs: changed.former, dedupeWindowMs }, 'The dedupe window of the group was changed');
  }

  /** Of what a place has to come to, the log may have less than could have been begun. */
  async #tightenHolds(client: pg.PoolClient): Promise<void> {
    const { schema, group, log } = this.#settings;
    const holds = await readHolds(client, this.#settings);
    const ends = new Map<string, readonly PartitionEnds[]>();
    for (const { topic } of holds) if (!ends.has(topic)) ends.set(topic, await log.ends(topic));
    const tighter = tightened(holds, ends);
    if (tighter.length > 0) {
      await client.query(
        `update ${schema}.processed_hold h set until_offset = least(h.until_offset, v.until_offset)
          from unnest($2::text[], $3::int[], $4::bigint[]) v (topic, partition, until_offset)
          where h.group_name = $1 and h.topic = v.topic and h.partition = v.partition`,
        [
          group,
          tighter.map(({ topic }) => topic),
          tighter.map(({ partition }) => partition),
          tighter.map(({ untilOffset }) => untilOffset.toString()),
        ],
      );
    }
  }

  async #call(client: pg.PoolClient, name: string, lockTimeoutMs: number): Promise<number> {
    const { schema } = this.#settings;
    await client.query(`begin isolation level read committed; set local lock_timeout = ${lockTimeoutMs}`);
    try {
      const { rows } = await client.query<{ count: number }>(`select ${schema}.${name}() as count`);
      await client.query('commit');
      return rows[0]?.count ?? 0;
    } catch (error) {
      await client.query('rollback').catch(() => undefined);
      throw error;
    }
  }

  async #attempt(problem: string, work: (client: pg.PoolClient) => Promise<unknown>): Promise<void> {
    const { group, logger } = this.#settings;
    try {
      await this.#withClient(work);
    } catch (error) {
      logger[isBusy(error) ? 'info' : 'warn']({ group, error: messageOf(error) }, problem);
    }
  }

  /** Goes on without an answer once the consumer has waited long enough for one. */
  async #withClient(work: (client: pg.PoolClient) => Promise<unknown>): Promise<void> {
    const { signal } = this.#tooLate;
    if (this.#stopping.signal.aborted) return;
    const given = Promise.withResolvers<undefined>();
    const giveUp = (): void => given.resolve(undefined);
    signal.addEventListener('abort', giveUp, { once: true });
    const used = this.#use(work, given.promise);
    try {
      await Promise.race([used, given.promise]);
    } finally {
      signal.removeEventListener('abort', giveUp);
      used.catch(() => undefined);
    }
  }

  /** Closes the client if it is still at work when `isTooLate` resolves. */
  async #use(work: (client: pg.PoolClient) => Promise<unknown>, isTooLate: Promise<undefined>): Promise<void> {
    const client = await this.#settings.database.connect();
    let isReleased = false;
    let lost: Error | undefined;
    const release = (reason?: Error | true): void => {
      if (!isReleased) client.release(reason);
      isReleased = true;
    };
    const onError = (error: Error): void => {
      lost ??= error;
    };
    client.on('error', onError);
    void isTooLate.then(() => release(true));
    try {
      if (!this.#stopping.signal.aborted) await work(client);
    } finally {
      release(lost);
      client.removeListener('error', onError);
    }
  }
}

/** Lock not available, deadlock: somebody else is in the way, and will not always be. */
function isBusy(error: unknown): boolean {
  return /^(55P03|40P01)$/.test(sqlStateOf(error) ?? '');
}

interface HoldText {
  topic: string;
  partition: number;
  next_offset: string;
  until_offset: string;
  stored_to: string;
}

async function readHolds(client: pg.PoolClient, { schema, group }: UpkeepSettings): Promise<Hold[]> {
  const { rows } = await client.query<HoldText>(
    `select h.topic, h.partition, c.next_offset::text, h.until_offset::text, c.stored_to::text
      from ${schema}.processed_hold h join ${schema}.consumer_cursor c using (group_name, topic, partition)
      where h.group_name = $1 order by h.topic, h.partition`,
    [group],
  );
  return rows.map(({ topic, partition, next_offset, until_offset, stored_to }) => ({
    topic,
    partition,
    nextOffset: BigInt(next_offset),
    untilOffset: BigInt(until_offset),
    storedTo: BigInt(stored_to),
  }));
}

/** The holds that reach beyond their partition's end, with that end. What neither log nor inbox has holds nothing. */
export function tightened(holds: readonly Hold[], ends: ReadonlyMap<string, readonly PartitionEnds[]>): Hold[] {
  return holds.flatMap((hold) => {
    const ofLog = ends.get(hold.topic)?.find(({ partition }) => partition === hold.partition)?.end ?? 0n;
    const { storedTo = 0n } = hold;
    const end = storedTo > ofLog ? storedTo : ofLog;
    return end < hold.untilOffset ? [{ ...hold, untilOffset: end }] : [];
  });
}
