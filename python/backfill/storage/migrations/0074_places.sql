-- does: Lets a worker's row say where its processes run, so that another worker on the same machine sees at once that they are
--   gone. Workers of the versions before do not write it, and those that cannot tell do not either: their heartbeat decides.
-- foundation: no
-- transaction: yes
-- breaking: no

alter table :"schema".backfill_workers
  add column place jsonb;

comment on column :"schema".backfill_workers.place is
  'Where it runs: host, boot, PID and time namespace, pid, start in clock ticks since the boot, children with theirs; or null.';
