-- tailrace 10: topics that keep the last record of each key.

-- Whether a topic is compacted. Records younger than `compaction_lag_ms` stay, and a delete marker (a record with a key and the
-- payload null) stays for `delete_retention_ms` after what it deletes was removed.
alter table tailrace.log_topic
  add column compact boolean not null default false,
  add column compaction_lag_ms bigint not null default 3600000
    constraint log_topic_compaction_lag_ms check (compaction_lag_ms >= 0),
  add column delete_retention_ms bigint not null default 86400000
    constraint log_topic_delete_retention_ms check (delete_retention_ms >= 0);

-- How far a partition of a compacted topic has been compacted. Below `clean_to` no key is there twice; `kept` records were left
-- there, `markers` of them delete markers. Those below `marker_to` delete nothing any more since `marker_since`.
-- Of a pass that is under way: it removes what is superseded below `pass_to`, and the markers below `pass_marker_to`; it has come
-- to `pass_at`, and has left so many records and markers behind it.
create table tailrace.log_compaction (
  partition int primary key references tailrace.log_partition (id) on delete cascade,
  clean_to bigint not null default 0,
  kept bigint not null default 0,
  markers bigint not null default 0,
  marker_to bigint not null default 0,
  marker_since timestamptz,
  pass_to bigint,
  pass_at bigint not null default 0,
  pass_marker_to bigint not null default 0,
  pass_kept bigint not null default 0,
  pass_markers bigint not null default 0,
  ran_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);

insert into tailrace.migration (version, name) values (10, 'compaction');
