-- does: Makes the function that tells for which value of its task's limit a job counts, and one by which producers in SQL
--   make the flags that say so; a producer's role may give these flags.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Gives the value that a job's flags name, and an empty text where they name none. It is cut off after 100 characters, so
-- that an index can hold it; longer values have a flag with their hash. Where a program can write the flags' JSON itself, the
-- flag backfill.limited has the value, too, so that the other flags need not be looked through, which takes four times as
-- long. The body names what it uses once and for all: an index is built on this function, and restoring a dump must not
-- depend on a search path.
create function :"schema".backfill_limit_value(flags jsonb) returns text
language sql immutable parallel safe
return coalesce(
  nullif(substr(flags ->> 'backfill.limited', 1, 100), 'true'),
  substr(
    jsonb_path_query_first(flags, '$.keyvalue().key ? (@ starts with "backfill.limit:")', '{}', true) #>> '{}', 16, 100
  ),
  ''
);

-- Gives the flags of a job with this payload, whose task has a limit by the field at this path, such as 'customer.id'. There
-- are none where the payload has no text, number or boolean there, or an empty text.
create function :"schema".backfill_limit_flags(payload json, path text) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
declare
  found json := payload;
  step text;
  value text;
begin
  foreach step in array string_to_array(path, '.') loop
    if json_typeof(found) is distinct from 'object' then
      return '{}';
    end if;
    found := found -> step;
  end loop;
  if json_typeof(found) in ('string', 'number', 'boolean') then
    value := found #>> '{}';
  end if;
  if coalesce(value, '') = '' then
    return '{}';
  elsif length(value) > 100 then
    value := 'sha256:' || encode(sha256(convert_to(value, 'UTF8')), 'hex');
  end if;
  return array['backfill.limited', 'backfill.limit:' || value];
end;
$body$;

create or replace function :"schema".backfill_check_flags(flags text[]) returns void
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
    elsif starts_with(flag, 'backfill.')
      and flag !~ '^backfill\.(retry|timeout|deadline|limit):'
      and flag not in ('backfill.block_on_retry', 'backfill.limited')
    then
      raise exception 'flags: "%" is set by backfill itself; leave it out', flag using errcode = 'reserved_name';
    end if;
  end loop;
end;
$body$;

-- Whoever writes a job needs the right to call the first, since an index calls it. Both only look at what they are given.
grant execute
on function :"schema".backfill_limit_value(jsonb), :"schema".backfill_limit_flags(json, text)
to public;
