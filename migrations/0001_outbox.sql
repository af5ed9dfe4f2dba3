-- tailrace 1: the outbox.
--
-- Any migration tool can run this file as it stands; the schema is then named tailrace. `tailrace migrate --schema name`
-- replaces the word tailrace, where it stands alone, by the quoted name.

create schema if not exists tailrace;

create table tailrace.migration (
  version int primary key,
  name text not null,
  applied_at timestamptz not null default now()
);

-- What no relay could route is refused here, also from writers that insert by themselves.
--
-- Insert-only and narrow: no status column, no update, no unique index on the message id. The identity hands out one
-- value at a time (cache 1): the polling source orders by it.
create table tailrace.outbox (
  position bigint generated always as identity (cache 1) primary key,
  message_id uuid not null,
  topic text not null,
  key text,
  type text not null,
  kind text not null default 'event',
  headers json not null default '{}',
  payload json,
  payload_bytes bytea,
  occurred_at timestamptz not null default clock_timestamp(),
  expires_at timestamptz,
  deliver_at timestamptz,
  tx bigint not null default pg_current_xact_id()::text::bigint,
  constraint outbox_topic check (topic ~ '^[A-Za-z0-9._-]{1,200}$'),
  constraint outbox_type check (length(type) between 1 and 200),
  constraint outbox_kind check (kind in ('event', 'command', 'document')),
  constraint outbox_one_payload check (num_nonnulls(payload, payload_bytes) = 1)
) partition by range (position);

-- For the polling source: finds the rows of recent transactions, and adds no WAL to an insert.
create index outbox_tx on tailrace.outbox using brin (tx) with (pages_per_range = 32, autosummarize = on);

-- Creates partitions until `partitions_ahead` stand wholly above the last position handed out; returns how many it
-- created. CREATE TABLE (LIKE …) then ATTACH holds writers up for milliseconds where CREATE … PARTITION OF can hold them
-- up for as long as the slowest reader. There is no default partition, since that would forbid concurrent detach.
create function tailrace.ensure_outbox_partitions(
  partitions_ahead int default 8, rows_per_partition bigint default 2000000
) returns int language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  last_position bigint;
  upper_bound bigint;
  partition_name text;
  created int := 0;
begin
  if partitions_ahead is null or partitions_ahead not between 1 and 100 then
    raise exception 'ensure_outbox_partitions: partitions_ahead is %, expected 1 to 100',
      coalesce(partitions_ahead::text, 'null') using errcode = '22023';
  end if;
  if rows_per_partition is null or rows_per_partition not between 10000 and 1000000000 then
    raise exception 'ensure_outbox_partitions: rows_per_partition is %, expected 10000 to 1000000000',
      coalesce(rows_per_partition::text, 'null') using errcode = '22023';
  end if;
  perform pg_advisory_xact_lock(hashtext('tailrace.ensure_outbox_partitions'));
  last_position := coalesce(pg_sequence_last_value(pg_get_serial_sequence('tailrace.outbox', 'position')::regclass), 0);
  select coalesce(max(substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''(\d+)''\)')::bigint), 1)
    into upper_bound
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'tailrace.outbox'::regclass;
  while upper_bound <= last_position + partitions_ahead * rows_per_partition loop
    partition_name := 'outbox_' || upper_bound;
    execute format('create table tailrace.%I (like tailrace.outbox including defaults including constraints including indexes)',
      partition_name);
    execute format('alter table tailrace.outbox attach partition tailrace.%I for values from (%s) to (%s)',
      partition_name, upper_bound, upper_bound + rows_per_partition);
    upper_bound := upper_bound + rows_per_partition;
    created := created + 1;
  end loop;
  return created;
end $$;

select tailrace.ensure_outbox_partitions();

-- Summarizes the index on tx for the partition that is being written, so that a poll finds recent rows fast.
create function tailrace.summarize_outbox() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  leaf regclass;
begin
  select x.indexrelid into leaf
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    join pg_index x on x.indrelid = c.oid
    join pg_inherits xi on xi.inhrelid = x.indexrelid and xi.inhparent = 'tailrace.outbox_tx'::regclass
    where i.inhparent = 'tailrace.outbox'::regclass
      and substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \(''(\d+)''\)')::bigint
        <= coalesce(pg_sequence_last_value(pg_get_serial_sequence('tailrace.outbox', 'position')::regclass), 1)
    order by substring(pg_get_expr(c.relpartbound, c.oid) from 'FROM \(''(\d+)''\)')::bigint desc
    limit 1;
  return coalesce(brin_summarize_new_values(leaf), 0);
end $$;

-- A UUIDv7 (RFC 9562, method 3 of section 6.2: milliseconds, then 12 bits of their fraction, then random bits).
create function tailrace.uuid_v7() returns uuid language sql volatile parallel safe set search_path = pg_catalog, pg_temp as $$
  select encode(
    set_byte(set_byte(
      overlay(uuid_send(gen_random_uuid()) placing substring(int8send(micros / 1000) from 3) from 1 for 6),
      6, 112 | ((micros % 1000) * 4096 / 1000 >> 8)::int),
      7, ((micros % 1000) * 4096 / 1000 & 255)::int),
    'hex')::uuid
  from (select (extract(epoch from clock_timestamp()) * 1000000)::bigint as micros) t
$$;

-- The outbox for writers in any language: call it inside the business transaction. Returns the message id.
create function tailrace.publish(
  topic text, key text, type text, payload json, headers json default '{}', kind text default 'event'
) returns uuid language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  id uuid := tailrace.uuid_v7();
  bytes bigint;
begin
  if topic is null or topic !~ '^[A-Za-z0-9._-]{1,200}$' then
    raise exception 'publish: the topic is %, expected 1 to 200 letters, digits, dots, underscores or hyphens',
      coalesce(quote_literal(left(topic, 200)), 'null') using errcode = '22023';
  end if;
  if type is null or length(type) not between 1 and 200 then
    raise exception 'publish: the type has % characters, expected 1 to 200, a name such as OrderPlaced',
      coalesce(length(type), 0) using errcode = '22023';
  end if;
  if payload is null then
    raise exception 'publish: the payload is null; pass json ''null'' for an empty one' using errcode = '22023';
  end if;
  if headers is null or json_typeof(headers) <> 'object' then
    raise exception 'publish: the headers are not a json object' using errcode = '22023';
  end if;
  if exists (select from json_each(headers) where json_typeof(value) <> 'string') then
    raise exception 'publish: a header is not a string, expected an object such as {"name": "value"}'
      using errcode = '22023';
  end if;
  if kind is null or kind not in ('event', 'command', 'document') then
    raise exception 'publish: the kind is %, expected event, command or document',
      coalesce(quote_literal(left(kind, 200)), 'null') using errcode = '22023';
  end if;
  bytes := octet_length(topic) + coalesce(octet_length(key), 0) + octet_length(type)
    + octet_length(payload::text) + octet_length(headers::text);
  if bytes > 1000000 then
    raise exception 'publish: the message has % bytes, at most 1000000 are allowed; store the payload elsewhere and send a reference',
      bytes using errcode = '54000';
  end if;
  insert into tailrace.outbox (message_id, topic, key, type, kind, headers, payload)
    values (id, topic, key, type, kind, headers, payload);
  return id;
end $$;

-- What the relay needs to assign partitions, never the payload. Changes appear under the root's name.
create publication tailrace for table tailrace.outbox (position, topic, key, tx)
  with (publish = 'insert', publish_via_partition_root = true);

-- These run with the rights of their owner, so whoever is to call them is granted that by name. The others run with the
-- caller's: publish needs the right to insert into the outbox, and is open to everybody who has it.
revoke execute on function tailrace.ensure_outbox_partitions(int, bigint), tailrace.summarize_outbox() from public;

insert into tailrace.migration (version, name) values (1, 'outbox');
