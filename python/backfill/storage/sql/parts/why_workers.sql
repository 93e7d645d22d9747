-- How many live workers know the task of a job, and how many of these take jobs with its flags, by what their rows say.
own_flags (name) as materialized (
  select jsonb_object_keys(case when jsonb_typeof(job.flags) = 'object' then job.flags end)
  from job
),
knowers as materialized (
  select
    count(*) as knowing,
    count(*) filter (
      where not exists (select from own_flags where workers.lanes #> '{0,forbidden_flags}' ? own_flags.name)
        and (
          workers.lanes #> '{0,accepted_flags}' is null
          or exists (select from own_flags where workers.lanes #> '{0,accepted_flags}' ? own_flags.name)
        )
    ) as taking
  from job
  join :"schema".backfill_workers as workers on job.task = any (workers.tasks)
  where workers.heartbeat_at > now() - workers.dead_after
    and workers.given_up_at is null
)
