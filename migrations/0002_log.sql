-- tailrace 2: the home log and the relay that writes it.

-- Who may append. The epoch rises with every takeover and is checked in every append; heartbeats are plain updates, a
-- takeover locks the row for update and so waits for an append that is under way.
create table tailrace.relay_lease (
  name text primary key,
  epoch bigint not null,
  holder text not null,
  backend_pid int not null,
  system_identifier text not null,
  timeline int not null,
  expires_at timestamptz not null
);

-- One row an append, inserted with its entries. `progress` is the source's position after it. `checkpoint`, on some
-- rows, is a snapshot of which everything visible is in the log, and what the log holds beyond it.
create table tailrace.relay_batch (
  name text not null,
  seq bigint not null,
  epoch bigint not null,
  progress text not null,
  checkpoint text,
  appended_at timestamptz not null default clock_timestamp(),
  primary key (name, seq)
);

create table tailrace.log_topic (
  name text primary key,
  partitions int not null check (partitions between 1 and 10000),
  created_at timestamptz not null default now()
);

-- A partition of a topic has one small number, by which entries are keyed.
create table tailrace.log_partition (
  id int generated always as identity primary key,
  topic text not null references tailrace.log_topic (name),
  partition int not null,
  unique (topic, partition)
);

-- Zero-copy: an entry holds the outbox positions of `count` records, at the offsets base, base + 1, …
create table tailrace.log_entry (
  partition int not null,
  base bigint not null,
  count int not null check (count > 0),
  ids bigint[] not null,
  seq bigint not null,
  appended_at timestamptz not null default clock_timestamp(),
  primary key (partition, base)
);
alter table tailrace.log_entry alter column ids set storage external;
create index log_entry_seq on tailrace.log_entry using brin (seq) with (pages_per_range = 16, autosummarize = on);

insert into tailrace.migration (version, name) values (2, 'log');
