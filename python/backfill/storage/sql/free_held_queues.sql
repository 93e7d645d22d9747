-- does: Frees the serial queues that are held for jobs which have ended or do not need them any more, and renews the locks of
--   the others; says how many it freed. Locks the paused queues that somebody has unlocked.
-- locks: _private_job_queues rows (update), backfill_held_queues rows (delete), both skip locked: they are looked for again;
--   backfill_control rows for key share, skip locked
-- index: none: its work is done in functions
-- params: none
select :"schema".backfill_free_queues(null) as freed, :"schema".backfill_keep_queues_paused() as kept
