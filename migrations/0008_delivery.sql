-- tailrace 8: how consumers deliver: limits that the members of a group share, and places that move with effects.

-- A token bucket: how many tokens there were, and when. What has come since is counted when some are taken.
create table tailrace.rate_bucket (
  group_name text not null references tailrace.consumer_group (name) on delete cascade,
  name text not null,
  tokens float8 not null,
  counted_at timestamptz not null,
  primary key (group_name, name)
) with (fillfactor = 50);

-- Takes up to `wanted` tokens from a bucket that gains `rate` a second and holds `capacity`; none if there are not `least`.
-- Whoever waits for the row looks at the clock afterwards, so that time is counted once. A clock that goes back gains nothing.
create function tailrace.take_rate_tokens(
  of_group text, of_bucket text, rate float8, capacity float8, least_wanted int, wanted int
) returns int language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  held tailrace.rate_bucket;
  now_at timestamptz;
  available float8;
  granted int;
begin
  insert into tailrace.rate_bucket (group_name, name, tokens, counted_at)
    values (of_group, of_bucket, capacity, clock_timestamp()) on conflict do nothing;
  select * into strict held from tailrace.rate_bucket where group_name = of_group and name = of_bucket for update;
  now_at := greatest(held.counted_at, clock_timestamp());
  available := least(capacity, held.tokens + rate * extract(epoch from now_at - held.counted_at)::float8);
  granted := least(wanted, floor(available)::int);
  if granted < least_wanted then return 0; end if;
  update tailrace.rate_bucket set tokens = available - granted, counted_at = now_at
    where group_name = of_group and name = of_bucket;
  return granted;
end $$;

-- Last in the transaction of a handler that moves the group's place itself, in place of `assert_assignment`: raises unless
-- the caller owns the partition, and unless the place is still at or before the first of the records. So an attempt after
-- one whose COMMIT went unanswered is undone if that one was committed.
create function tailrace.advance_cursor(
  of_group text, of_topic text, of_partition int, with_epoch bigint, from_offset bigint, to_offset bigint
) returns void language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform tailrace.assert_assignment(of_group, of_topic, of_partition, with_epoch);
  update tailrace.consumer_cursor set next_offset = to_offset
    where group_name = of_group and topic = of_topic and partition = of_partition and epoch = with_epoch
      and next_offset <= from_offset;
  if not found then
    raise exception 'tailrace: group % is past offset % of % partition %', of_group, from_offset, of_topic, of_partition
      using errcode = 'TR002';
  end if;
end $$;

insert into tailrace.migration (version, name) values (8, 'delivery');
