-- does: Counts jobs for a limit that began to hold while they ran: gives them slots, which may be beyond the limit.
-- locks: the turn at counts, those at the values' states, and backfill_limit_states rows, until the transaction ends
-- index: none: its work is done inside a function
-- params: $1 task text, $2 job_ids bigint[]
select :"schema".backfill_count_jobs($1::text, $2::bigint[])::text as counted
