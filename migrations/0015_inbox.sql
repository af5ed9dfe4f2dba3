-- tailrace 15: the inbox of groups that store records before they handle them.

-- Records that a group has received and not handled, in the handlers' database: whatever becomes of them in their log, they
-- are here. `key` and `payload` are bytes, so that nothing of what a log may hold is changed; `is_text`: the payload is the text
-- of JSON. Rows come in order and leave in order.
create table tailrace.inbox (
  group_name text not null,
  topic text not null,
  partition int not null,
  record_offset bigint not null,
  message_id uuid not null,
  type text not null,
  kind text not null,
  key bytea,
  headers json not null,
  payload bytea not null,
  is_text boolean not null,
  bytes int not null,
  occurred_at timestamptz not null,
  expires_at timestamptz,
  deliver_at timestamptz,
  stored_at timestamptz not null default clock_timestamp(),
  primary key (group_name, topic, partition, record_offset)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 2000);

-- What a group has stored of a partition: the records from `stored_from` on and below `stored_to`. Where `stored_to` is at
-- the group's place or before it, that is nothing any more; else the place is among them.
alter table tailrace.consumer_cursor
  add column stored_from bigint not null default 0,
  add column stored_to bigint not null default 0;

-- Says that the records from `from_offset` on and below `to_offset` are stored: in the transaction that inserts them, before
-- it does. Raises unless the caller owns the partition; false, if what is stored does not end at `former_to`. The lock comes
-- before the row's, as a takeover takes them.
create function tailrace.extend_inbox(
  of_group text, of_topic text, of_partition int, with_epoch bigint, former_to bigint, to_offset bigint
) returns boolean language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform tailrace.assert_assignment(of_group, of_topic, of_partition, with_epoch);
  update tailrace.consumer_cursor set stored_to = to_offset,
      stored_from = case when stored_to > next_offset then stored_from else next_offset end
    where group_name = of_group and topic = of_topic and partition = of_partition and epoch = with_epoch
      and stored_to = former_to;
  return found;
end $$;

-- Removes stored records that are below the group's place, for the owner of a partition; answers the place, or null if the
-- partition is another's. A place that is moved meanwhile waits for it, or ends the assignment first.
create function tailrace.trim_inbox(of_group text, of_topic text, of_partition int, with_epoch bigint)
returns bigint language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  place bigint;
begin
  update tailrace.consumer_cursor set stored_from = greatest(stored_from, next_offset)
    where group_name = of_group and topic = of_topic and partition = of_partition and epoch = with_epoch
    returning next_offset into place;
  if found then
    delete from tailrace.inbox where group_name = of_group and topic = of_topic and partition = of_partition
      and record_offset < place;
  end if;
  return place;
end $$;

insert into tailrace.migration (version, name) values (15, 'inbox');
