-- tailrace 14: groups whose members share the records of a partition: work queues.

-- `work-queue`: members hold ranges of records; a partition's owner only watches its end and handles what is parked of it.
alter table tailrace.consumer_group add column mode text not null default 'partitions'
  constraint consumer_group_mode check (mode in ('partitions', 'work-queue'));

-- How many records more a member of a work queue could take when it was last heard.
alter table tailrace.consumer_member add column room int not null default 0;

-- Of a work queue: records below `dealt_to` are in a range or finished, those from there to `seen_end` are to be dealt.
-- `next_offset` is the lowest offset of an open range, or else `dealt_to`. Null: nothing was dealt from this place.
alter table tailrace.consumer_cursor add column dealt_to bigint, add column seen_end bigint;

-- Records of a partition that one member has, or that are free (`member_id` null). Its lease is made anew whenever it changes
-- hands. `abandonments`: how many members in a row have died with it. `released_by`: who has given it back.
create table tailrace.work_range (
  lease uuid primary key,
  group_name text not null references tailrace.consumer_group (name) on delete cascade,
  topic text not null,
  partition int not null,
  from_offset bigint not null,
  to_offset bigint not null,
  member_id text,
  abandonments int not null default 0,
  released_by text,
  check (from_offset < to_offset)
) with (fillfactor = 50);
create index work_range_place on tailrace.work_range (group_name, topic, partition, from_offset);

-- Last in a transaction of a handler whose record is of a range: raises unless the range is still the caller's. The shared
-- lock, held to the end of the transaction, makes whoever takes the range away wait for this commit.
create function tailrace.assert_range(with_lease uuid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform pg_advisory_xact_lock_shared(hashtext('tailrace_range'), hashtext(with_lease::text));
  perform from tailrace.work_range where lease = with_lease;
  if not found then
    raise exception 'tailrace: the range with the lease % is not this member''s any more', with_lease using errcode = 'TR001';
  end if;
end $$;

insert into tailrace.migration (version, name) values (14, 'work_queue');
