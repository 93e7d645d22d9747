-- does: Makes the function by which a scheduler registers many recurring items at once.
-- foundation: no
-- transaction: yes
-- breaking: no

-- Registers items, or none of them where another transaction is registering one of them at the moment. A scheduler of Node
-- registers several in one transaction, in the order of its crontab; it and this one, each of which has a row that the other
-- one waits for, would wait for ever. This one waits so briefly that the server never has to end the other one.
create function :"schema".backfill_register_schedules(identifiers text[], since timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
as $body$
begin
  insert into :"schema"._private_known_crontabs (identifier, known_since)
  select item.identifier, since
  from unnest(identifiers) as item (identifier)
  order by item.identifier
  on conflict do nothing;
exception
  when lock_not_available then
    null;
end;
$body$;

revoke execute on function :"schema".backfill_register_schedules(text[], timestamptz) from public;
