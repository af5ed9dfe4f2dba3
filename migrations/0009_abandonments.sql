-- tailrace 9: how often in a row the owner of a partition left it without a word.

-- Two of them within an hour, and the next owner looks for the record that they may have died of.
alter table tailrace.consumer_cursor
  add column abandonments int not null default 0,
  add column abandoned_at timestamptz;

insert into tailrace.migration (version, name) values (9, 'abandonments');
