-- tailrace 12: groups of one process, groups that take over from another, and canaries.

-- `ephemeral`: the group is one process's own, and goes with it. `follows`: it is to take over from that group, and has no
-- partitions before it has. `hands_over_to`: its members give everything up for that group; it has all of it since
-- `handed_over_at`. `canary_percent`: the share of partitions that members which are canaries get, while there are any.
alter table tailrace.consumer_group
  add column ephemeral boolean not null default false,
  add column follows text,
  add column hands_over_to text,
  add column handed_over_at timestamptz,
  add column canary_percent int not null default 0 check (canary_percent between 0 and 100);
create index consumer_group_ephemeral on tailrace.consumer_group (name) where ephemeral;

alter table tailrace.consumer_member add column canary boolean not null default false;

-- Removes the ephemeral groups whose process has left, or has let its lease run out; returns how many. Whoever holds the lock
-- of a group's row is that process, or somebody who does the same.
create function tailrace.remove_ephemeral_groups() returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  candidate text;
  removed int := 0;
begin
  for candidate in
    select name from tailrace.consumer_group g where ephemeral and not exists (
      select from tailrace.consumer_member m where m.group_name = g.name and m.expires_at >= clock_timestamp())
    order by name for update skip locked
  loop
    -- Looked at again: its process may have been heard between the look and the lock.
    continue when exists (
      select from tailrace.consumer_member m where m.group_name = candidate and m.expires_at >= clock_timestamp());
    delete from tailrace.parked_message where group_name = candidate;
    delete from tailrace.suspect_attempt where group_name = candidate;
    delete from tailrace.consumer_group where name = candidate; -- its members, places and limits go with it
    removed := removed + 1;
  end loop;
  return removed;
end $$;

-- It runs with the rights of its owner: see the end of 0001.
revoke execute on function tailrace.remove_ephemeral_groups() from public;

insert into tailrace.migration (version, name) values (12, 'deployments');
