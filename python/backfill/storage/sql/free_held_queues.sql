-- does: Frees the serial queues that are held for jobs which have ended or do not need them any more, and renews the locks of
--   the others; says how many it freed.
-- locks: _private_job_queues rows (update), backfill_held_queues rows (delete), both skip locked: they are looked for again
-- index: none: its work is done in a function
-- params: none
select :"schema".backfill_free_queues(null) as freed
