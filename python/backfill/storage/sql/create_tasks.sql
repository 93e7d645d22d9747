-- does: Makes the tasks that are missing, in the order of their names, so that two workers that start at once never wait
--   for each other in a ring.
-- locks: none but the new rows
-- index: tasks_identifier_key
-- params: $1 identifiers text[]
insert into :"schema"._private_tasks (identifier)
select name
from unnest($1::text[]) as name
where not exists (select from :"schema"._private_tasks as tasks where tasks.identifier = name)
order by name
on conflict do nothing
