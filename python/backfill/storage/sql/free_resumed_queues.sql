-- does: Unlocks the serial queues that are locked for a pause which does not stand any more; says how many.
-- locks: _private_job_queues rows (update), skip locked: they are looked for again
-- index: none: its work is done in a function, which reads all queues, now and then
-- params: none
select :"schema".backfill_free_resumed_queues() as queues
