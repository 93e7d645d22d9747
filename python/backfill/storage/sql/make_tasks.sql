-- does: Makes the tasks that are missing, outside a transaction, in the order of their names. It waits only briefly for a
--   transaction that is making one of them too: that one may want another of these next.
-- locks: none but the new rows
-- index: tasks_identifier_key
-- params: $1 identifiers text[]
insert into :"schema"._private_tasks (identifier)
select name
from unnest($1::text[]) as name
cross join (select set_config('lock_timeout', '200ms', true)) as patience (given)
where patience.given is not null
  and not exists (select from :"schema"._private_tasks as tasks where tasks.identifier = name)
order by name
on conflict do nothing
