-- A worker that was told flags takes only jobs with one of them. It is wrapped in coalesce, since the planner would believe
-- that hardly any job has one, and then no longer read the first jobs by their index.
and coalesce(jobs.flags ?| $0::text[], false)
