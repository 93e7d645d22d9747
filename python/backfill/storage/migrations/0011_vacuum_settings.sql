-- does: Has autovacuum look after the queue's tables often.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Every job is inserted, updated and deleted within seconds. At the server's default a million rows gather 200,000 dead
-- ones before they are cleared away, and claims read past each; here a few thousand do, and the cleaning does not pause.
alter table :"schema"._private_jobs set (
  autovacuum_vacuum_scale_factor = 0.01,
  autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_insert_scale_factor = 0.1,
  autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0.05,
  autovacuum_analyze_threshold = 2000
);

alter table :"schema"._private_job_queues set (
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 500,
  autovacuum_vacuum_cost_delay = 0
);
