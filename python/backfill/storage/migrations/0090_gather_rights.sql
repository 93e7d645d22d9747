-- does: Gives the function by which a producer's client adds jobs together to the roles that may add single ones: programs of
--   this version work before the printed grants are run again.
-- foundation: no
-- transaction: yes
-- breaking: no

do $body$
declare
  here regnamespace := (
    select relnamespace from pg_class where oid = pg_typeof(null:::"schema"._private_jobs)::text::regclass
  );
  granted record;
begin
  for granted in
    select distinct pg_get_userbyid(rights.grantee) as name
    from pg_proc as adding
    cross join aclexplode(adding.proacl) as rights
    where adding.pronamespace = here
      and adding.proname = 'backfill_add_job'
      and rights.grantee not in (0, adding.proowner)
  loop
    execute format(
      'grant execute on function %s.backfill_gather_producer_jobs('
      'text[], text[], text[], integer[], timestamptz[], interval[], integer[], text[], text[], text, boolean, text) to %I',
      here, granted.name
    );
  end loop;
end;
$body$;
