-- does: Lets a worker's row say after how long without a heartbeat it is dead, so that everybody judges it by its own setting.
--   Workers of the versions before do not write it: the default is what was taken for all of them.
-- foundation: no
-- transaction: yes
-- breaking: no

alter table :"schema".backfill_workers
  add column dead_after interval not null default interval '20 seconds';

comment on column :"schema".backfill_workers.dead_after is 'Without a heartbeat for so long it is dead.';
