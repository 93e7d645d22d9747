-- Frees the queues that were held for these jobs' retries.
freed as materialized (
  select :"schema".backfill_free_queues(array(
    select jobs.id from jobs where jobs.flags ? 'backfill.block_on_retry'
  )) as queues
)
