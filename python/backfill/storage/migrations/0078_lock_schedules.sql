-- does: Makes the functions by which a scheduler takes recurring items for its runs, and writes what it has run.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Locks the rows of items, and gives of each item how far it has run, what operators said, and, of those in `overlapping`,
-- whether the job of the last run still waits or runs. It passes over rows that another transaction holds: Node's statement
-- locks rows in the order of its crontab, so whoever waited for one while it holds another could wait in a ring.
-- The second statement has a snapshot of its own, later than the locks: it sees what those wrote who had the locks before. A
-- pause locks the item's row too, until it is committed; so no run follows a pause that has returned.
-- The rows of items have as many dead versions as runs under an old snapshot; no plan may read all of them.
create function :"schema".backfill_lock_schedules(wanted text[], overlapping text[])
returns table (identifier text, reached timestamptz, revision bigint, is_off boolean, is_open boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_bitmapscan = off set enable_seqscan = off set jit = off
as $body$
#variable_conflict use_column
declare
  names text[];
  times timestamptz[];
begin
  select array_agg(held.identifier), array_agg(held.reached) into names, times
  from (
    select known.identifier, coalesce(known.last_execution, known.known_since) as reached
    from :"schema"._private_known_crontabs as known
    where known.identifier = any (wanted)
    for update skip locked
  ) as held;
  return query
  select
    held.identifier, held.reached, coalesce(said.revision, 0), coalesce(said.is_off, false),
    held.identifier = any (overlapping) and exists (
      select
      from :"schema".backfill_schedule_jobs as last
      where last.identifier = any (array[held.identifier])
        and exists (
          select
          from :"schema"._private_jobs as jobs
          where jobs.id = any (array[last.job_id])
            and (jobs.locked_at is not null or jobs.attempts < jobs.max_attempts)
        )
    )
  from unnest(names, times) as held (identifier, reached)
  left join lateral (
    select schedules.revision, schedules.paused_at is not null or schedules.removed_at is not null as is_off
    from :"schema".backfill_schedules as schedules
    where schedules.identifier = any (array[held.identifier])
  ) as said on true;
end;
$body$;

-- Advances the last runs of items that the transaction has locked, and writes the last job of those that got one. It is given
-- each run that is done with; the id of its job is null where it got none.
create function :"schema".backfill_note_runs(identifiers text[], runs timestamptz[], job_ids bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_bitmapscan = off set enable_seqscan = off set jit = off
as $body$
begin
  update :"schema"._private_known_crontabs as known
  set last_execution = done.reached
  from (
    select item.identifier, max(item.run) as reached
    from unnest(identifiers, runs) as item (identifier, run)
    group by item.identifier
  ) as done
  where known.identifier = any (array[done.identifier]);
  insert into :"schema".backfill_schedule_jobs as last (identifier, run_at, job_id, added_at)
  select distinct on (item.identifier) item.identifier, item.run, item.job_id, now()
  from unnest(identifiers, runs, job_ids) as item (identifier, run, job_id)
  where item.job_id is not null
  order by item.identifier, item.run desc
  on conflict (identifier) do update
  set run_at = excluded.run_at, job_id = excluded.job_id, added_at = excluded.added_at;
end;
$body$;

revoke execute
on function
  :"schema".backfill_lock_schedules(text[], text[]),
  :"schema".backfill_note_runs(text[], timestamptz[], bigint[])
from public;
