-- does: Stops a script that is meant for a database without the schema where one of the two ledgers is there.
-- locks: none
-- index: none: it asks the catalogue by name
-- params: none
do $function$
begin
  if to_regclass($name$:"schema".migrations$name$) is not null
    or to_regclass($name$:"schema".backfill_migrations$name$) is not null
  then
    raise exception 'the schema is there already: `backfill migrate --sql` with --dsn prints what this database lacks';
  end if;
end;
$function$
