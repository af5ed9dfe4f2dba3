-- tailrace 3: consumer groups. These tables live in the handlers' database, for every log.

create table tailrace.consumer_group (
  name text primary key,
  generation int not null default 1,
  created_at timestamptz not null default now()
);

create table tailrace.consumer_member (
  group_name text not null references tailrace.consumer_group (name) on delete cascade,
  member_id text not null,
  topics text[] not null,
  expires_at timestamptz not null,
  primary key (group_name, member_id)
);

-- A partition's place in a group. `next_offset` is the low mark: every record below it is handled or parked. The epoch
-- rises with every new owner and fences the former one. `wanted` is the member that the owner is to hand over to.
create table tailrace.consumer_cursor (
  group_name text not null references tailrace.consumer_group (name) on delete cascade,
  topic text not null,
  partition int not null,
  next_offset bigint not null,
  epoch bigint not null default 0,
  owner text,
  wanted text,
  primary key (group_name, topic, partition)
);

-- The row that says that a consumer has applied a message. Inserted first in the handler's transaction. A UUIDv7 is
-- ordered by time, so ranges of ids are ranges of time and old partitions can leave; foreign ids go to the default one.
create table tailrace.processed_message (
  message_id uuid not null,
  consumer text not null,
  generation int not null,
  primary key (message_id, consumer, generation)
) partition by range (message_id);
create table tailrace.processed_message_default partition of tailrace.processed_message default;

-- Creates the weekly partitions of processed_message from this week to `weeks_ahead` from now; returns how many it
-- created. A week for which the default partition already holds rows stays there.
create function tailrace.ensure_processed_partitions(weeks_ahead int default 4)
returns int language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  week bigint := 7 * 24 * 3600 * 1000::bigint;
  first bigint := (extract(epoch from clock_timestamp()) * 1000)::bigint / week;
  child text;
  created int := 0;
  low text;
  high text;
begin
  if weeks_ahead is null or weeks_ahead not between 0 and 52 then
    raise exception 'ensure_processed_partitions: weeks_ahead is %, expected 0 to 52',
      coalesce(weeks_ahead::text, 'null') using errcode = '22023';
  end if;
  perform pg_advisory_xact_lock(hashtext('tailrace.ensure_processed_partitions'));
  for n in first .. first + weeks_ahead loop
    child := 'processed_message_w' || n;
    continue when to_regclass('tailrace.' || child) is not null;
    low := encode(substring(int8send(n * week) from 3), 'hex') || repeat('0', 20);
    high := encode(substring(int8send((n + 1) * week) from 3), 'hex') || repeat('0', 20);
    begin
      execute format('create table tailrace.%I (like tailrace.processed_message including indexes)', child);
      execute format('alter table tailrace.processed_message attach partition tailrace.%I for values from (%L) to (%L)',
        child, low::uuid, high::uuid);
      created := created + 1;
    exception when check_violation then
      null; -- rolled back to before this week's table
    end;
  end loop;
  return created;
end $$;

select tailrace.ensure_processed_partitions();

-- It runs with the rights of its owner: see the end of 0001.
revoke execute on function tailrace.ensure_processed_partitions(int) from public;

-- Records set aside: `dead` once their attempts are used up, else waiting for an operator or a handler.
create table tailrace.parked_message (
  group_name text not null,
  topic text not null,
  partition int not null,
  record_offset bigint not null,
  generation int not null default 1,
  message_id uuid not null,
  key text,
  type text not null,
  kind text not null,
  headers json not null,
  payload json,
  payload_bytes bytea,
  occurred_at timestamptz not null,
  dead boolean not null,
  reason text not null,
  error text,
  attempts int not null,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (group_name, topic, partition, record_offset, generation)
);

-- Last in a handler's transaction: raises unless the caller still owns the partition. The shared lock, held to the end
-- of the transaction, makes a takeover wait for this commit, and costs no row lock. Its name has an underscore, so that it
-- is the same in every schema (see the head of 0001), as the one who takes over expects.
create function tailrace.assert_assignment(
  of_group text, of_topic text, of_partition int, with_epoch bigint
) returns void language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock_shared(hashtext('tailrace_assignment'), hashtext(of_group || '/' || of_topic || '/' || of_partition));
  perform from tailrace.consumer_cursor
    where group_name = of_group and topic = of_topic and partition = of_partition and epoch = with_epoch;
  if not found then
    raise exception 'tailrace: the assignment of % partition % in group % has ended (epoch %)',
      of_topic, of_partition, of_group, with_epoch using errcode = 'TR001';
  end if;
end $$;

insert into tailrace.migration (version, name) values (3, 'consumer');
