-- tailrace 16: epochs of a group outlive it.

-- The highest epoch of each group that was deleted. A group of the same name begins above it, so that nothing which a member
-- of the former one still has under way commits.
create table tailrace.former_group (
  name text primary key,
  last_epoch bigint not null
);

create function tailrace.begin_above_former_group() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  new.first_epoch := greatest(new.first_epoch,
    (select last_epoch from tailrace.former_group where name = new.name));
  return new;
end $$;

revoke execute on function tailrace.begin_above_former_group() from public;

create trigger begin_above_former_group before insert on tailrace.consumer_group
  for each row execute function tailrace.begin_above_former_group();

insert into tailrace.migration (version, name) values (16, 'former_groups');
