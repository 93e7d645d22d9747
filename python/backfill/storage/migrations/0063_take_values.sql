-- does: Makes the function by which a worker takes shares of a limit for jobs that have values.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Goes through waiting jobs in their order (`numbers` are the places of their values in `looked`), and takes those whose values
-- have shares left, and those that may be claimed ahead of one, whose start is null. It locks what it takes for the claim.
create function :"schema".backfill_take_values(
  of_task text, of_by text, of_worker text, wanted integer, task_ids integer[], looked text[], ahead integer[],
  jobs bigint[], numbers integer[], queues integer[],
  out taken bigint[], out values_taken text[], out slots integer[], out starts double precision[],
  out wait double precision, out is_full boolean, out is_busy boolean, out is_stale boolean
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $body$
declare
  held :"schema".backfill_limits;
  counts integer[] := array(
    select count(candidates.place)
    from generate_series(1, cardinality(looked)) as number
    left join unnest(numbers) as candidates (place) on candidates.place = number
    group by number order by number);
  number integer;
  mine boolean;
  took record;
  have integer[];
  used integer[] := array_fill(0, array[cardinality(looked)]);
  before integer[];
  places tid[] := '{}';
  place_numbers integer[];
  states tid[] := array_fill(null::tid, array[cardinality(looked)]);
  clocks bigint[];
  first double precision[];
  step double precision;
  filled tid[] := '{}';
  fillers bigint[] := '{}';
  hoped bigint := (select coalesce(sum(one), 0) from unnest(ahead) as one);
begin
  select * into held from :"schema".backfill_limits as limits where limits.task = of_task;
  is_stale := not found or held.by_path is distinct from of_by;
  is_full := false;
  is_busy := false;
  taken := '{}';
  for line in 1 .. case when is_stale then 0 else coalesce(cardinality(jobs), 0) end loop
    exit when cardinality(fillers) >= wanted and hoped <= 0;
    number := numbers[line];
    if have[number] is null and cardinality(fillers) < wanted then
      took := :"schema".backfill_take_value(held, looked[number], least(wanted - cardinality(fillers), counts[number]));
      have[number] := took.granted;
      before[number] := cardinality(places);
      places := places || took.places;
      place_numbers := place_numbers || took.numbers;
      states[number] := took.state;
      clocks[number] := took.clock;
      first[number] := took.first;
      step := coalesce(took.step, step);
      wait := least(wait, took.wait);
      is_full := is_full or took.is_full;
      is_busy := is_busy or took.is_busy;
    end if;
    mine := cardinality(fillers) < wanted and used[number] < have[number];
    continue when not coalesce(mine, false) and (coalesce(ahead[number], 0) <= 0 or held.rate_count is not null);
    continue when not :"schema".backfill_lock_job(jobs[line], queues[line], looked[number], task_ids);
    taken := taken || jobs[line];
    values_taken := values_taken || looked[number];
    if mine then
      used[number] := used[number] + 1;
      fillers := fillers || jobs[line];
      filled := filled || places[before[number] + used[number]];
      slots := slots || place_numbers[before[number] + used[number]];
      starts := starts || greatest(coalesce(first[number] + (used[number] - 1) * step, 0) / 1000000, 0);
    else
      ahead[number] := ahead[number] - 1;
      hoped := hoped - 1;
      slots := slots || null::integer;
      starts := starts || null::double precision;
    end if;
  end loop;
  update :"schema".backfill_shares as shares
  set job_id = job.id, worker = of_worker, attempt = job.attempts + 1, turn = shares.turn + 1, locked_at = now()
  from :"schema"._private_jobs as job
  where shares.ctid = any (filled)
    and job.id = any (array[fillers[array_position(filled, shares.ctid)]]);
  update :"schema".backfill_limit_states as reached
  set next_at = timestamptz 'epoch' + (clocks[array_position(states, reached.ctid)]
    + used[array_position(states, reached.ctid)] * step) * interval '1 microsecond'
  where reached.ctid = any (states)
    and used[array_position(states, reached.ctid)] > 0;
  is_full := is_full and cardinality(fillers) < wanted;
  perform set_config('backfill.taken', taken::text, true);
end;
$body$;

revoke execute
on function :"schema".backfill_take_values(
  text, text, text, integer, integer[], text[], integer[], bigint[], integer[], integer[]
)
from public;
