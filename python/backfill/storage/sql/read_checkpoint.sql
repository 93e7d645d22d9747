-- does: Gives the checkpoint of a job as text; no row where the job has said nothing of its progress.
-- locks: none
-- index: backfill_progress_pkey
-- params: $1 job bigint
select progress.checkpoint::text as checkpoint
from :"schema".backfill_progress as progress
where progress.job_id = $1::bigint
