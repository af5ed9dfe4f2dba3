-- tailrace 5: how long the log keeps its records, and how the outbox lets go of them.

-- What a topic keeps: records for so many milliseconds, so many bytes of messages in each partition. Null: without a limit.
alter table tailrace.log_topic
  add column retention_ms bigint constraint log_topic_retention_ms check (retention_ms > 0),
  add column retention_bytes bigint constraint log_topic_retention_bytes check (retention_bytes > 0);

-- The first offset that can be read. Entries below it may be there for a while; the last entry of a partition always stays,
-- for it says where the partition ends.
alter table tailrace.log_partition add column start bigint not null default 0;

-- An entry names its records (`ids`), or holds them (`packed`, compressed; `bytes`: their size before that). It has the
-- offsets from `base` to before `base + count`.
alter table tailrace.log_entry
  alter column ids drop not null,
  add column packed bytea,
  add column bytes bigint,
  add constraint log_entry_records check (num_nonnulls(ids, packed) = 1 and num_nonnulls(packed, bytes) in (0, 2)) not valid;
alter table tailrace.log_entry alter column packed set storage external;

-- Stretches of a partition that were measured, for topics that keep so many bytes: they follow each other without a gap.
create table tailrace.log_segment (
  partition int not null,
  base bigint not null,
  next_base bigint not null check (next_base > base),
  bytes bigint not null,
  first_at timestamptz not null,
  last_at timestamptz not null,
  primary key (partition, base)
);

-- Who looked after the log last, and what it found. One row.
create table tailrace.log_maintenance (
  name text primary key,
  ran_at timestamptz not null,
  holder text not null,
  -- Whether its role owns the outbox, so that it can remove partitions.
  is_owner boolean not null,
  -- Partitions of the outbox that are old enough to leave and still there, and why the first of them is.
  waiting int not null,
  reason text
);

-- Partitions of the outbox that take no more rows, and are on their way out. The row outlives an interruption anywhere.
create table tailrace.outbox_sealed (
  name text primary key,
  low bigint not null,
  high bigint not null,
  sealed_at timestamptz not null default clock_timestamp()
);

-- Refuses rows for a partition that was sealed. A transaction that drew a position long ago and inserts only now repeats.
create function tailrace.refuse_sealed() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'tailrace: position % belongs to a partition of the outbox that is closed; repeat the transaction',
    new.position using errcode = '40001';
end $$;

insert into tailrace.migration (version, name) values (5, 'retention');
