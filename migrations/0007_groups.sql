-- tailrace 7: topics that get more partitions, and what consumer groups need beside membership.

-- A topic that was given more partitions: how many it had, and where each of these ended at that moment:
-- switch_offsets[n + 1] is the end of partition n. Records of a key go to an added partition only from then on.
create table tailrace.log_topic_growth (
  topic text not null references tailrace.log_topic (name),
  partitions_before int not null,
  switch_offsets bigint[] not null,
  grown_at timestamptz not null default clock_timestamp(),
  primary key (topic, partitions_before)
);

-- Rises when a topic gets more partitions. An append that was routed before is refused.
alter table tailrace.relay_lease add column layout bigint not null default 0;

-- Gives a topic more partitions, between two appends; returns how many it had, null if there is no such topic. Does nothing
-- if it has as many. The lock on the table keeps a lease from being made meanwhile; the one on its row waits for an
-- append that is under way, and makes the next one see the new layout.
create function tailrace.add_partitions(of_topic text, up_to int) returns int
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  former int;
begin
  if up_to is null or up_to not between 1 and 10000 then
    raise exception 'add_partitions: up_to is %, expected 1 to 10000', coalesce(up_to::text, 'null') using errcode = '22023';
  end if;
  lock table tailrace.relay_lease in share row exclusive mode;
  perform from tailrace.relay_lease for update;
  select partitions into former from tailrace.log_topic where name = of_topic for update;
  if former is null or former >= up_to then
    return former;
  end if;
  insert into tailrace.log_topic_growth (topic, partitions_before, switch_offsets)
    select of_topic, former, array_agg(coalesce(tail.next_offset, 0) order by p.partition)
    from tailrace.log_partition p
    left join lateral (
      select base + count as next_offset from tailrace.log_entry where partition = p.id order by base desc limit 1
    ) tail on true
    where p.topic = of_topic;
  insert into tailrace.log_partition (topic, partition) select of_topic, n from generate_series(former, up_to - 1) n;
  update tailrace.log_topic set partitions = up_to where name = of_topic;
  update tailrace.relay_lease set layout = layout + 1;
  return former;
end $$;

-- A partition that was added while the group read the topic is handled once the group's places in the partitions that
-- were there before have come to these offsets.
alter table tailrace.consumer_cursor add column opens_after bigint[];

-- A place that is moved back begins a new generation of its partition, in which messages are handled again. Records below
-- `replay_below` were handled in an earlier one, but for those at the offsets `replay_except`, which were parked when the place
-- was moved; of those from there to `replay_until`, the rows of processed_message know.
alter table tailrace.consumer_cursor
  add column generation int not null default 1,
  add column replay_below bigint not null default 0,
  add column replay_until bigint not null default 0,
  add column replay_except bigint[] not null default '{}';

-- `incarnation`: which start of a member it is, in the order in which the group has counted them (`joins`). Of two processes
-- with one name the later one is the member. A static member has its partitions kept for `static_lease_ms` after it was last
-- heard, or was stopped.
alter table tailrace.consumer_group add column joins bigint not null default 0;
alter table tailrace.consumer_member
  add column incarnation bigint not null default 0,
  add column static_lease_ms int,
  add column host text,
  add column joined_at timestamptz not null default now();

insert into tailrace.migration (version, name) values (7, 'groups');
