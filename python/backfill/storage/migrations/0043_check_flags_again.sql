-- does: Makes the function that refuses flags which only this package sets, again: a producer may give
--   backfill.block_on_retry, too.
-- foundation: no
-- transaction: yes
-- breaking: no

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
      and flag !~ '^backfill\.(retry|timeout|deadline):'
      and flag <> 'backfill.block_on_retry'
    then
      raise exception 'flags: "%" is set by backfill itself; leave it out', flag using errcode = 'reserved_name';
    end if;
  end loop;
end;
$body$;
