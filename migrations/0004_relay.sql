-- tailrace 4: what operators ask of the relay, its dead letters, and writers in order per key.

-- `wanted_mode` outlives restarts and takeovers; null leaves the choice to the relay's own settings. `mode` and
-- `mode_reason` are what the holder reported last.
alter table tailrace.relay_lease
  add column wanted_mode text constraint relay_lease_wanted_mode check (wanted_mode in ('wal', 'polling')),
  add column mode text,
  add column mode_reason text;

-- Messages that could not be routed, by their outbox position: as in the log, nothing is copied. `seq` is the batch with
-- which a message was set aside; until a checkpoint of that batch or a later one is stored, the row tells the relay that it
-- had the message. `asked`: what the relay is to do with it; from then on only the relay changes the row.
create table tailrace.relay_dead_letter (
  position bigint primary key,
  seq bigint not null,
  topic text not null,
  reason text not null,
  error text not null,
  attempts int not null default 1,
  set_aside_at timestamptz not null default clock_timestamp(),
  asked text constraint relay_dead_letter_asked check (asked in ('retry', 'discard')),
  asked_by text,
  asked_at timestamptz
);
create index relay_dead_letter_seq on tailrace.relay_dead_letter (seq);
create index relay_dead_letter_asked on tailrace.relay_dead_letter (asked, position) where asked is not null;

-- Makes the messages of a key wait for each other until the transaction ends: whoever inserts the next one has seen the
-- last one committed. So their positions follow the order of their commits, whatever else the writers lock. For inserts of
-- your own: call it first. Without a key it does nothing. The name of the lock has an underscore, so that it is the same in
-- every schema.
create function tailrace.lock_key(topic text, key text) returns void
language sql volatile set search_path = pg_catalog, pg_temp as $$
  select pg_advisory_xact_lock(hashtext('tailrace_key'), hashtext(topic || '/' || key)) where key is not null
$$;

-- publish, with the key locked first.
create function tailrace.publish_in_key_order(
  topic text, key text, type text, payload json, headers json default '{}', kind text default 'event'
) returns uuid language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  perform tailrace.lock_key(topic, key);
  return tailrace.publish(topic, key, type, payload, headers, kind);
end $$;

insert into tailrace.migration (version, name) values (4, 'relay');
