import type { Database } from './database.ts';

/** Business keys that the writers count up. */
export const KEYS = Array.from({ length: 48 }, (_, n) => `key-${n}`);
/** Published before their row is locked, by writers that ask for strict order per key. */
export const STRICT_KEYS = ['strict-0', 'strict-1', 'strict-2', 'strict-3'];
/** The same by writers that do not: no order is promised while the relay polls. */
export const FREE_KEYS = ['free-0', 'free-1', 'free-2', 'free-3'];
/** Counted up by the run itself, to measure how long a message takes after a fault. */
export const PROBE_KEY = 'probe';
/** Counted up by transactions that hold their lock for long. */
export const IDLE_KEY = 'idle';
/** Counted up by transactions that are visible long after they were written. */
export const LATE_KEYS = ['late-0', 'late-1', 'late-2', 'late-3'];
/** Counted up by large transactions. */
export const HUGE_KEYS = ['huge-0', 'huge-1'];
/** Counted up for messages under whose handler the process ends, some times. */
export const POISON_KEY = 'poison';
/** How often. */
export const POISON_DEATHS = 4;
/** Counted up by huge transactions, in a topic of the same name that nobody reads. */
export const BULK_KEY = 'bulk';

export const TOPIC = 'torture';
export const MESSAGE_TYPE = 'Stepped';

/** What a message says, and what the truth says of it. */
export interface Step {
  readonly id: number;
  readonly k: string;
  readonly n: number;
}

/** The number in a message that was published before its number was known. */
export const NOT_YET_KNOWN = -1;

/**
 * The tables of the oracle. `n` counts the commits of a key, under the lock of the key's row: dense, and in the order of the
 * commits. The table of effects has no unique constraint, which would hide what it forbids. Two triggers write down who
 * appended under which lease, whatever the append statement itself checks; a third one who committed an effect in a partition of
 * somebody else.
 */
export async function createTables(database: Database, handlers: Database): Promise<void> {
  await database.query(TABLES);
  if (handlers !== database) await handlers.query('create schema torture');
  await handlers.query(HANDLERS_TABLES);
  await database.query(`insert into torture.agg (k) select unnest($1::text[])`, [
    [...KEYS, ...STRICT_KEYS, ...FREE_KEYS, PROBE_KEY, IDLE_KEY, ...LATE_KEYS, ...HUGE_KEYS, POISON_KEY, BULK_KEY],
  ]);
}

const TABLES = `
  -- Durable without a standby, unless a session asks for more.
  alter database postgres set synchronous_commit = local;

  create schema torture;
  create table torture.agg (k text primary key, n bigint not null default 0);
  create table torture.truth (id bigint primary key, k text not null, n bigint not null);
  create table torture.batch (
    seq bigint not null, epoch bigint not null, lease_epoch bigint, progress pg_lsn not null,
    at timestamptz not null default clock_timestamp()
  );
  create table torture.lease (
    epoch bigint not null, holder text not null, at timestamptz not null default clock_timestamp()
  );

  create function torture.count_up(of_key text, with_id bigint) returns bigint language plpgsql as $$
  declare counted bigint;
  begin
    update torture.agg set n = n + 1 where k = of_key returning n into counted;
    insert into torture.truth values (with_id, of_key, counted);
    return counted;
  end $$;

  create function torture.step(of_key text, with_id bigint) returns void language plpgsql as $$
  declare counted bigint := torture.count_up(of_key, with_id);
  begin
    perform tailrace.publish('${TOPIC}', of_key, '${MESSAGE_TYPE}', json_build_object('id', with_id, 'k', of_key, 'n', counted));
  end $$;

  -- The first ids go to the first keys, in the order given.
  create function torture.steps(of_keys text[], with_ids bigint[]) returns void language plpgsql as $$
  begin
    for i in 1 .. cardinality(of_keys) loop
      perform torture.step(of_keys[i], with_ids[i]);
    end loop;
  end $$;

  create function torture.leap(of_key text, first_id bigint, steps int) returns void language plpgsql as $$
  declare last bigint;
  begin
    update torture.agg set n = n + steps where k = of_key returning n into last;
    insert into torture.truth select first_id + i, of_key, last - steps + 1 + i from generate_series(0, steps - 1) i;
    insert into tailrace.outbox (message_id, topic, key, type, payload)
      select tailrace.uuid_v7(), case of_key when '${BULK_KEY}' then of_key else '${TOPIC}' end, of_key, '${MESSAGE_TYPE}',
        json_build_object('id', first_id + i, 'k', of_key, 'n', last - steps + 1 + i)
      from generate_series(0, steps - 1) i;
  end $$;

  create function torture.note_batch() returns trigger language plpgsql as $$
  begin
    insert into torture.batch (seq, epoch, lease_epoch, progress)
      values (new.seq, new.epoch, (select epoch from tailrace.relay_lease where name = new.name), new.progress::pg_lsn);
    return null;
  end $$;
  create trigger torture_note after insert on tailrace.relay_batch
    for each row execute function torture.note_batch();

  create function torture.note_lease() returns trigger language plpgsql as $$
  begin
    insert into torture.lease (epoch, holder) values (new.epoch, new.holder);
    return null;
  end $$;
  create trigger torture_note after insert or update of epoch on tailrace.relay_lease
    for each row execute function torture.note_lease();
`;

/** Where the consumers' handlers write. */
const HANDLERS_TABLES = `
  create table torture.effect (
    seq bigint generated always as identity, group_name text not null, partition int not null, id bigint not null,
    k text not null, n bigint not null
  );
  -- What ended processes, how often, and which attempt it was in the end, as its handler was told.
  create table torture.poison (id bigint primary key, deaths int not null default 0, attempt int);
  create table torture.stale_effect (group_name text not null, id bigint not null, member text not null, owner text not null);
  create index on torture.effect (id) where k = '${PROBE_KEY}';

  -- Looks as late as can be whose the partition is: who commits is named as its session.
  create function torture.note_stale_effect() returns trigger language plpgsql as $$
  begin
    insert into torture.stale_effect
      select new.group_name, new.id, current_setting('application_name'), c.owner from tailrace.consumer_cursor c
      where c.group_name = new.group_name and c.topic = '${TOPIC}' and c.partition = new.partition
        and not starts_with(c.owner, current_setting('application_name'));
    return null;
  end $$;
  create constraint trigger torture_note after insert on torture.effect deferrable initially deferred
    for each row execute function torture.note_stale_effect();
`;
