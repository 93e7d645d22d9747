-- does: Makes the index by which claims find waiting jobs of one value of their task's limit, and the values that such jobs
--   have. Only jobs with the flag that marks them are in it.
-- foundation: no
-- transaction: no
-- index: backfill_jobs_limited
-- breaking: no

create index concurrently backfill_jobs_limited
on :"schema"._private_jobs (
  task_id, (:"schema".backfill_limit_value(flags)) collate "C", priority, run_at, id
)
where (is_available = true and flags ? 'backfill.limited');
