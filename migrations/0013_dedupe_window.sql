-- tailrace 13: how long rows of processed_message stay, and how old ones leave.

-- For how long, from when its id was made, the group knows a message as handled. Null: nobody has said, so seven days; the
-- largest bigint: for ever.
alter table tailrace.consumer_group
  add column dedupe_window_ms bigint constraint consumer_group_dedupe_window_ms check (dedupe_window_ms > 0);

-- Rows leave in rounds, one at a time. A round takes the rows of `weeks` that were there when it began, and those in
-- processed_stray. It ends once every place in processed_hold has come to `until_offset`: no record below that comes again.
create table tailrace.processed_round (
  only_one boolean primary key default true check (only_one),
  weeks bigint[] not null,
  began_at timestamptz not null default clock_timestamp()
);
create table tailrace.processed_hold (
  group_name text not null,
  topic text not null,
  partition int not null,
  until_offset bigint not null,
  primary key (group_name, topic, partition)
);
-- Old rows of the default partition that the round takes.
create table tailrace.processed_stray (
  message_id uuid not null,
  consumer text not null,
  generation int not null,
  primary key (message_id, consumer, generation)
);
-- Rows that came to the weeks of the round after it began. They stay.
create table tailrace.processed_late (like tailrace.processed_stray including indexes);

create function tailrace.keep_late_processed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  insert into tailrace.processed_late values (new.message_id, new.consumer, new.generation) on conflict do nothing;
  return null;
end $$;

-- The week, counted from 1970, before which no group needs rows by its window.
create function tailrace.first_processed_week() returns bigint
language sql stable set search_path = pg_catalog, pg_temp as $$
  select (floor(extract(epoch from clock_timestamp()) * 1000)::bigint
      - coalesce(max(coalesce(dedupe_window_ms, 604800000)), 604800000)) / 604800000
    from tailrace.consumer_group
$$;

-- Ends the round if it may end, or begins one if there are old rows; returns how many weeks were emptied. Locks weeks that are
-- emptied or were chosen, never the table as a whole: handlers wait only where they write rows of these weeks. To be called
-- with a lock_timeout, in a transaction of its own at isolation level read committed.
create function tailrace.expire_processed_messages() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  needed_from bigint := tailrace.first_processed_week();
  low_bound uuid := (encode(substring(int8send(greatest(needed_from, 0) * 604800000) from 3), 'hex') || repeat('0', 20))::uuid;
  round_weeks bigint[];
  child text;
  has_rows boolean;
  n bigint;
  emptied int := 0;
begin
  if not pg_try_advisory_xact_lock(hashtext('tailrace.expire_processed_messages')) then return 0; end if;
  delete from tailrace.processed_hold h where not exists (
    select from tailrace.consumer_cursor c where c.group_name = h.group_name and c.topic = h.topic
      and c.partition = h.partition and c.next_offset < h.until_offset);

  select weeks into round_weeks from tailrace.processed_round;
  if found then
    if exists (select from tailrace.processed_hold) then return 0; end if;
    lock table only tailrace.processed_message in row exclusive mode; -- in the order of handlers: the table, then the week
    foreach n in array round_weeks loop
      child := 'processed_message_w' || n;
      continue when to_regclass('tailrace.' || child) is null;
      if n < needed_from then -- else a group has asked for a longer window meanwhile
        execute format('truncate tailrace.%I', child);
        emptied := emptied + 1;
      end if;
      execute format('drop trigger if exists keep_late on tailrace.%I', child);
    end loop;
    delete from tailrace.processed_message_default d using tailrace.processed_stray s
      where d.message_id = s.message_id and d.consumer = s.consumer and d.generation = s.generation
        and d.message_id < low_bound;
    insert into tailrace.processed_message select * from tailrace.processed_late on conflict do nothing;
    delete from tailrace.processed_late;
    delete from tailrace.processed_stray;
    delete from tailrace.processed_round;
    return emptied;
  end if;

  round_weeks := '{}';
  for n in select substring(c.relname from '_w(\d+)$')::bigint from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'tailrace.processed_message'::regclass and c.relname ~ '_w\d+$' order by 1 loop
    continue when n >= needed_from;
    execute format('select exists (select from tailrace.%I)', 'processed_message_w' || n) into has_rows;
    continue when not has_rows;
    -- Waits for transactions that have written to the week. What comes later is kept.
    execute format('create trigger keep_late after insert on tailrace.%I for each row execute function tailrace.keep_late_processed()',
      'processed_message_w' || n);
    round_weeks := round_weeks || n;
  end loop;
  -- Ids of version 7, which tell their time. A few at a time: they are copied.
  insert into tailrace.processed_stray
    select message_id, consumer, generation from tailrace.processed_message_default
    where message_id < low_bound and substr(message_id::text, 15, 1) = '7' limit 100000;
  if round_weeks = '{}' and not exists (select from tailrace.processed_stray) then return 0; end if;
  insert into tailrace.processed_round (weeks) values (round_weeks);
  -- Read after the rows were settled. Those are of records below `reach`; a place that had an owner before there was a
  -- reach does not say.
  insert into tailrace.processed_hold
    select group_name, topic, partition, case when reach > 0 then reach else 9223372036854775807 end
    from tailrace.consumer_cursor
    where epoch > 0 and next_offset < case when reach > 0 then reach else 9223372036854775807 end;
  return 0;
end $$;

-- Drops old weeks that are empty; returns how many. Waits for all transactions that use the table, and those that come later
-- wait behind it: to be called with a short lock_timeout, in a transaction of its own. Rows of these weeks go to the default
-- partition from then on.
create function tailrace.drop_processed_partitions() returns int
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  needed_from bigint := tailrace.first_processed_week();
  children text[] := '{}';
  child text;
  has_rows boolean;
  dropped int := 0;
begin
  if not pg_try_advisory_xact_lock(hashtext('tailrace.expire_processed_messages')) then return 0; end if;
  for child in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'tailrace.processed_message'::regclass and c.relname ~ '_w\d+$'
        and substring(c.relname from '_w(\d+)$')::bigint < needed_from
        and not exists (select from tailrace.processed_round where substring(c.relname from '_w(\d+)$')::bigint = any(weeks)) loop
    execute format('select exists (select from tailrace.%I)', child) into has_rows;
    if not has_rows then children := children || child; end if;
  end loop;
  if children = '{}' then return 0; end if;
  lock table only tailrace.processed_message in access exclusive mode;
  foreach child in array children loop
    execute format('select exists (select from tailrace.%I)', child) into has_rows;
    continue when has_rows;
    execute format('drop table tailrace.%I', child);
    dropped := dropped + 1;
  end loop;
  return dropped;
end $$;

-- They run with the rights of their owner, or are for those that do: see the end of 0001.
revoke execute on function tailrace.keep_late_processed(), tailrace.first_processed_week(),
  tailrace.expire_processed_messages(), tailrace.drop_processed_partitions() from public;

insert into tailrace.migration (version, name) values (13, 'dedupe_window');
