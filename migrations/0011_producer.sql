-- tailrace 11: messages that are produced outside business transactions, and topics that are deleted.

-- The last batch of each producer that is in the outbox. It commits with the batch, so a batch that is sent again, because
-- nobody knows what became of it, is not added twice.
create table tailrace.producer (
  id uuid primary key,
  batch bigint not null,
  used_at timestamptz not null
) with (fillfactor = 50);

-- Called by the statement that adds a batch: whether it is to be added. Of two attempts at once the later one waits here for
-- the end of the other. A commit that a producer is told of is durable, whatever the database does with others. Rows of
-- producers that have been silent for a day are removed: no attempt takes so long. Their ids begin with the time.
create function tailrace.claim_batch(of_producer uuid, number bigint) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  insert into tailrace.producer as p (id, batch, used_at) values (of_producer, number, clock_timestamp())
    on conflict (id) do update set batch = excluded.batch, used_at = excluded.used_at where p.batch < excluded.batch;
  if not found then
    return false;
  end if;
  if number = 1 then
    delete from tailrace.producer where id in (
      select id from tailrace.producer
        where id < (encode(substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint - 86400000) from 3), 'hex')
            || repeat('0', 20))::uuid
          and used_at < clock_timestamp() - interval '1 day'
        order by id limit 100 for update skip locked
    );
  end if;
  return true;
end $$;
revoke execute on function tailrace.claim_batch(uuid, bigint) from public;

-- A topic that is deleted takes the places of groups in it along. Places that are new begin with this epoch, above those of the
-- former ones: whoever had one of these cannot take it for the new one.
alter table tailrace.consumer_group add column first_epoch bigint not null default 0;

insert into tailrace.migration (version, name) values (11, 'producer');
