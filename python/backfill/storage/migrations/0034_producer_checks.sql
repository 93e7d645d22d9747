-- does: Makes the functions that refuse what a producer may not say of a job, before anything is written: so no constraint
--   of a table is broken, whose error would show the whole row.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Refuses flags that only this package sets: those that begin with `backfill.`, but for the three that a job may be given.
create function :"schema".backfill_check_flags(flags text[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
  flag text;
begin
  foreach flag in array coalesce(flags, '{}') loop
    if flag is null then
      raise exception 'flags: a null among them' using errcode = 'null_value_not_allowed';
    elsif length(flag) not between 1 and 512 then
      raise exception 'flags: one of % characters, expected 1 to 512', length(flag) using errcode = 'invalid_parameter_value';
    elsif starts_with(flag, 'backfill.') and flag !~ '^backfill\.(retry|timeout|deadline):' then
      raise exception 'flags: "%" is set by backfill itself; leave it out', flag using errcode = 'reserved_name';
    end if;
  end loop;
end;
$body$;

create function :"schema".backfill_check_job(
  identifier text, queue_name text, max_attempts integer, job_key text, priority integer, flags text[]
) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
begin
  if identifier is null or length(identifier) not between 1 and 128 then
    raise exception 'identifier: expected 1 to 128 characters' using errcode = 'invalid_parameter_value';
  elsif length(queue_name) not between 1 and 128 then
    raise exception 'queue_name: expected 1 to 128 characters' using errcode = 'invalid_parameter_value';
  elsif length(job_key) not between 1 and 512 then
    raise exception 'job_key: expected 1 to 512 characters' using errcode = 'invalid_parameter_value';
  elsif max_attempts not between 1 and 32767 then
    raise exception 'max_attempts = %: expected 1 to 32767', max_attempts using errcode = 'invalid_parameter_value';
  elsif priority not between -32768 and 32767 then
    raise exception 'priority = %: expected -32768 to 32767', priority using errcode = 'invalid_parameter_value';
  end if;
  perform :"schema".backfill_check_flags(flags);
end;
$body$;

-- Refuses arrays of unequal length. They have one element a job each; their lengths are given in the order of the names below.
-- Null counts as an empty array.
create function :"schema".backfill_check_lengths(variadic lengths integer[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $body$
declare
  names constant text[] :=
    '{identifiers, queue_names, payloads, priorities, run_ats, max_attempts, flags, job_keys}';
  told text;
begin
  select string_agg(format('%s has %s', names[place], coalesce(length, 0)), ', ' order by place)
  into told
  from unnest(lengths) with ordinality as given (length, place)
  having count(distinct coalesce(length, 0)) > 1;
  if told is not null then
    raise exception 'arrays of unequal length: %; give each one element a job', told
      using errcode = 'invalid_parameter_value';
  end if;
end;
$body$;

-- Holds tasks and queues until the transaction ends, and makes those that are missing.
create function :"schema".backfill_have_names(identifiers text[], queue_names text[]) returns void
language plpgsql
as $body$
declare
  tasks text[] := array(select distinct name from unnest(identifiers) as name);
  queues text[] := array(select distinct name from unnest(queue_names) as name where name is not null);
begin
  for round in 1..100 loop
    if :"schema".backfill_keep_names(tasks, queues) then
      return;
    end if;
    perform :"schema".backfill_make_names(tasks, queues, false);
  end loop;
  raise exception 'tasks % and queues % were made 100 times, and deleted as often', tasks, queues
    using errcode = 'serialization_failure';
end;
$body$;
