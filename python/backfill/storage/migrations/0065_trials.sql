-- does: Makes the function by which a worker says how the job ended that was tried after the pause of an open breaker.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Closes a breaker whose trial did not fail, and gives the control that stood; opens it again for twice the time where the
-- trial failed, and gives the control that stands now. No row, and nothing is done, where another control than the one of
-- that version stands meanwhile, or where its pause is not over: so who asks twice changes nothing.
create function :"schema".backfill_end_trial(of_task text, standing bigint, failed boolean)
returns setof :"schema".backfill_control
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $body$
declare
  open :"schema".backfill_control;
  pause double precision;
  longest double precision;
  trips bigint;
begin
  perform :"schema".backfill_take_turn('control');
  select * into open
  from :"schema".backfill_control as control
  where control.kind = 'breaker'
    and control.subject = 'task:' || of_task
    and control.version = standing
    and (control.said ->> 'until')::timestamptz <= clock_timestamp();
  if not found then
    return;
  elsif not failed then
    return query select * from :"schema".backfill_unsay('breaker', open.subject);
    return;
  end if;
  -- A breaker that somebody has opened by hand may not say these.
  pause := case when jsonb_typeof(open.said -> 'pause') = 'number' then (open.said ->> 'pause')::double precision else 30 end;
  longest := case when jsonb_typeof(open.said -> 'longest') = 'number' then (open.said ->> 'longest')::double precision else 3600 end;
  trips := (open.said ->> 'trips')::bigint;
  return next :"schema".backfill_say(
    'breaker', open.subject,
    open.said || jsonb_build_object(
      'trips', least(trips + 1, 2147483647),
      'until', clock_timestamp() + least(pause * 2.0 ^ least(trips, 40), longest) * interval '1 second'
    ),
    'breaker', format('the job that was tried after trip %s failed', trips)
  );
end;
$body$;

revoke execute on function :"schema".backfill_end_trial(text, bigint, boolean) from public;
