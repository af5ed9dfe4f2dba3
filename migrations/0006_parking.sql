-- tailrace 6: parked messages keep the order of their keys, wait for their time, and are looked after by operators.

-- `blocks`: later records of the key line up behind it. `due_at`: when it may be handled; null with `blocks` is due as soon
-- as it is the first of its key, null without waits for an operator, and so does what is dead. `revision` rises with every
-- change: whoever has read an older one can do nothing with it. `running`: an attempt has begun and not ended, as far as is
-- known; `crashes` counts those that began when the one before had left it so.
alter table tailrace.parked_message
  add column blocks boolean not null default false,
  add column due_at timestamptz,
  add column revision int not null default 1,
  add column running boolean not null default false,
  add column crashes int not null default 0,
  add column expires_at timestamptz,
  add column deliver_at timestamptz,
  add column first_error text,
  add column first_failed_at timestamptz,
  add column last_failed_at timestamptz;

-- The rows of a key in their order. By its hash: an index takes no text of more than some 2,700 bytes.
create index parked_message_key on tailrace.parked_message (group_name, topic, partition, hashtext(key), record_offset)
  where blocks;
-- What is due, whatever else waits.
create index parked_message_due on tailrace.parked_message (group_name, topic, partition, due_at) where due_at is not null;

-- What operators did to parked messages, and what seeks made of them: the row as it was, and as it is then.
create table tailrace.parked_audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  actor text not null,
  action text not null,
  group_name text not null,
  topic text not null,
  partition int not null,
  record_offset bigint not null,
  generation int not null,
  message_id uuid not null,
  before json not null,
  after json
);
create index parked_audit_message on tailrace.parked_audit (message_id);

-- No record at or above `reach` has been begun by an owner so far: what a former owner may have had in flight lies below.
alter table tailrace.consumer_cursor add column reach bigint not null default 0;

-- Attempts at records that a former owner may have died of, each committed before its handler begins; gone with its success.
create table tailrace.suspect_attempt (
  group_name text not null,
  topic text not null,
  partition int not null,
  record_offset bigint not null,
  generation int not null,
  attempts int not null,
  first_at timestamptz not null default clock_timestamp(),
  primary key (group_name, topic, partition, record_offset, generation)
);

insert into tailrace.migration (version, name) values (6, 'parking');
